"""Small functions trained on the stored vectors: vector → score. One file a method."""
