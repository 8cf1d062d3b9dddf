"""Made-up secrets in the formats of their issuers, put together here so that no scanner takes this file for a leak."""

from __future__ import annotations

LETTERS = "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xYz0cD"

SECRETS = {
    "private key": [
        "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIBOgIBAAJBAK\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN " + "OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk",
        "-----BEGIN PGP " + "PRIVATE KEY BLOCK-----\n\nlQOYBF",
    ],
    "API key": [
        "sk-" + LETTERS + LETTERS,
        "sk-proj-" + LETTERS + "_-" + LETTERS,
        "sk-ant-api03-" + LETTERS + LETTERS + "-AA",
        "gsk_" + LETTERS + LETTERS[:19],
        "xai-" + LETTERS + LETTERS,
        "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH",
        "AI" + "za" + (LETTERS + "_-")[:35],
        "ya29" + "." + LETTERS,
    ],
    "AWS key": ["AK" + "IA" + "IOSFODNN7EXAMPLE"[:9] + "2345ABC", "AS" + "IA" + "QWERTYUIOP234567"],
    "repository token": [
        "gh" + "p_" + (LETTERS * 2)[:36],
        "github" + "_pat_" + (LETTERS * 3)[:82],
        "glp" + "at-" + LETTERS[:20],
    ],
    "package registry token": ["np" + "m_" + (LETTERS * 2)[:36], "py" + "pi-AgEIcHlwaS5vcmc" + LETTERS * 3],
    "Slack token": [
        "xo" + "xb-123456789012-" + LETTERS,
        "https://hooks.slack" + ".com/services/T00000000/B00000000/" + LETTERS,
    ],
    "payment key": ["sk" + "_live_" + LETTERS[:24], "rk" + "_test_" + LETTERS[:24]],
    "mail service key": ["S" + "G." + LETTERS[:22] + "." + (LETTERS * 2)[:43]],
    "JSON web token": ["eyJ" + "hbGciOiJIUzI1NiJ9.eyJ" + "zdWIiOiIxMjM0In0." + LETTERS],
    "bearer token": ["Authorization: Bear" + "er " + LETTERS],
    "basic credentials": ["Authorization: Bas" + "ic dXNlcjpodW50ZXIy"],
    "password in a URL": ["postgres://app:hunter" + "2@db.example.com/prod", "redis://:s3cr" + "et@10.0.0.1:6379/0"],
    "token in a URL": ["https://api.example.com/v1?q=a&api_key=" + LETTERS],
    "assigned password": ['password = "hunter' + '2!pass"', "'apikey': '" + LETTERS + "'"],
    "card number": [
        "4111 1111 1111 " + "1111",
        "5555555555554" + "444",
        "3782 822463 " + "10005",
        "4111-1111-1111-" + "1111",
    ],
}

INNOCENT = [
    "How do I reset my password?",
    "What is the password for the wifi at the London office?",
    "Write a password generator in Python: password = input('new password: ')",
    "Where do I find the secret key of my API?",
    "Is sk-learn better than scikit-learn-contrib-some-other-name-here?",
    "Compare https://example.com/a:b and http://localhost:8080/x@y",
    "My order 4111111111111112 has not come.",  # fails the check digit
    "It happened at 1732200000000 and again at 1732200000001.",
    "The commit is 4111111111111111aa and the digest 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08.",
    "Call +49 4111 1111 1111 or 0800-123-4567.",
    "Write to help@example.com.",
    "tokens = tokenizer.encode(text); token = next(tokens)",
    "Pi is 3.1415926535897932384 and 1e-4242424242424242.",
]
