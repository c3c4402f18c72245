"""The papers' protocols, one command each; see bench/README.md."""
