"""Language models: the players' models and tokenizers, what they read, and models behind an endpoint."""
