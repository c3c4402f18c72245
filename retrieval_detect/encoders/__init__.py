"""RGB pixels → vectors: open_clip, timm, the offline encoder, and the pipeline that feeds them."""
