"""Files → RGB pixels, safely: where images come from, how they are decoded, what identifies them."""
