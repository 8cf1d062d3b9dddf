"""The report of a replay as a page that needs nothing but itself."""
