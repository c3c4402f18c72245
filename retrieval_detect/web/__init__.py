"""The web page and the REST service: one detector, asked over HTTP. Nothing else imports FastAPI."""
