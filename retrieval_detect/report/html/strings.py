"""Every word of the report and of the evidence on the web page, in English, in one place.

Templates know this module as ``t``. What is said of verdicts on a terminal too comes from ``report.words``.
"""

from __future__ import annotations

from retrieval_detect.report.words import BECAUSE
from retrieval_detect.version import __version__

LANGUAGE = "en"
TITLE_ONE = "Evidence about {name}"
TITLE_MANY = "Evidence about {n} images"
MADE_BY = f"Made with retrieval-detect {__version__}. This page is complete in itself and loads nothing."

# ---------------------------------------------------------------- headings

OVERVIEW = "Overview"
BACK = "Back to the overview"
VERDICT = "What may be concluded"
VERDICT_HIDDEN = "Show the verdict"
VERDICT_HIDDEN_NOTE = "The evidence is shown first, so that it can be weighed without the verdict in mind."
IMAGE = "The image"
PROVENANCE = "What the file says about itself"
REFERENCES = "The nearest references"
REFERENCES_REAL = "Nearest in the real bank"
REFERENCES_FAKE = "Nearest in the fake bank"
VOTES = "Votes"
ATTRIBUTION = "Nearest fakes, by generator"
DISTRIBUTION = "Where the score lies"
STABILITY = "Re-encoded copies"
REGIONS = "Parts of the image"
INFLUENCE = "Without some references"
BESIDE = "With authentic photographs beside"
MAP = "Map of the banks"
SAME_IMAGE = "The image itself among the references"
WARNINGS = "What may mislead here"
LIMITS = "What this can and cannot say"
REPRODUCE = "How to get the same answer again"

# ---------------------------------------------------------------- columns and names

FILE, SIZE, FORMAT, BYTES, SHA256 = "file", "size", "format", "file size", "SHA-256"
PIXELS = "{width:,} × {height:,} pixels"
NUMBER_OF_BYTES = "{n:,} bytes"
SIMILARITY = "similarity"
ADDED, SUBJECT, ROW = "added", "subject", "row"
CAPTION, URL = "caption beside it", "address beside it"
SCORE, CHANGE, WITHOUT = "score", "change", "without"
COPY, JUDGED = "copy", "judged"
WHERE, PICTURE = "where", "picture"
REFERENCE_OF = {"fake": "generator", "real": "source"}
MARKS = {"fake-like": "▲", "real-like": "▼", "uncertain": "◆", "unknown": "?"}
TOWARDS = {"real": "nearer to the real bank", "fake": "nearer to the fake bank"}
NOTHING = "–"

# ---------------------------------------------------------------- pictures

ALT_QUERY = "the image {name}"
ALT_REFERENCE = "{label} reference {row_id}, {name}"
ALT_HEAT = "the image with the scores of its parts laid over it; they are listed below"
NO_PICTURE = "no picture kept"
NOT_SHOWN = "pictures are left out of this report"
CHANGED = "the file has changed since"
GONE = "the file is not here"
NOT_READ = "the file cannot be read as an image"
BLURRED = "blurred"

# ---------------------------------------------------------------- the verdict

UNCALIBRATED_NOTE = (
    "This index has no calibration that answers for the method used: the score says which bank is nearer, "
    "and nothing about how often a photograph scores like this."
)
TIMES_FAKE = "A score like this is about {times} times as frequent among {fakes} as among {photographs}."
TIMES_REAL = "A score like this is about {times} times as frequent among {photographs} as among {fakes}."
TIMES_EQUAL = "A score like this is about as frequent among {photographs} as among {fakes}."
PROPOSITIONS = {
    "known": {"photographs": "photographs of known sources", "fakes": "images of known generators"},
    "new": {
        "photographs": "photographs of a source that is not in the index",
        "fakes": "images of a generator that is not in the index",
    },
}
NEW_SOURCES = "Photographs from elsewhere: {said}."
NOT_COMPARABLE = "The real bank holds nothing comparable: {said}."
AS_HIGH = "{as_high:,} of {photographs:,} calibration photographs, from {sources}, score this high."
NOT_ABOUT_OTHERS = "None of this is the chance of a fake."
FALSE_ALARMS = {
    "known": "Judged at {percent:.3g} % false alarms: of {of:,} photographs like those of the calibration, "
    "about {n:,} would be called fake-like.",
    "new": "Judged at {percent:.3g} % false alarms: of {of:,} photographs like those of the calibration, "
    "about {n:,} would score high enough; called fake-like are those of them alone whose score is rare among "
    "photographs from elsewhere, too.",
}
FALSE_DISCOVERIES = (
    "Judged as part of a batch: of the images called fake-like in it, about {percent:.3g} % or fewer are "
    "photographs, if its photographs are like those of the calibration."
)
PROBABILITY = (
    "With {prior:.3g} % fakes among such images, as was stated for this report and not measured, "
    "{chance:.3g} % of those that score so are fakes."
)
NO_PROBABILITY = (
    "No probability is given: it would need the share of fakes among such images, which was not stated."
)

# ---------------------------------------------------------------- the evidence

REFERENCES_NOTE = BECAUSE
SAME_SUBJECT = "Of the {of} shown whose subject is recorded, {n} show the same: {subject}."
NO_SUBJECTS = "The subjects of these references are not recorded."
VOTES_NOTE = (
    "{fake} of the {of} nearest references are fake, while fakes are {share:.0f} % of all references. The"
    " nearest fake has similarity {nearest[fake]:.3f}, the nearest photograph {nearest[real]:.3f}."
)
VOTES_FAKE, VOTES_ALL = "among the nearest", "among all references"
VOTES_TEXT = "{share:.0f} % fake"
ATTRIBUTION_BAR = "{n} of the nearest, {share:.0f} % of the weight"
ATTRIBUTION_BAR_OF_HEAD = "{n} of the nearest, {share:.0f} % by {head}"
ATTRIBUTION_FIT = "; {p:.0f} % of its known images lie as far out"
NO_FAKES_NEAR = "None of the nearest references is a fake"
DISTRIBUTION_NOTE = (
    "Scores of images set aside, which no reference is a copy of: the line is this image. Higher is "
    "closer to the fake bank. Of {n_real:,} photographs {real:,} score as high or higher; of {n_fake:,} "
    "fakes {fake:,} score as low or lower."
)
DISTRIBUTION_ROW = {"real": "photographs ({n:,})", "fake": "fakes ({n:,})"}
THIS_IMAGE, THESE_IMAGES = "this image", "these images"
STABILITY_NOTE = (
    "Copies as they arise when images are shared, each judged like the image itself: {agreement}."
)
AGREES, DIFFERS = "agrees", "differs"
REGIONS_NOTE = (
    "Parts were judged one by one. Red with stripes is closer to parts of fakes, blue to parts of "
    "photographs, the deeper the further; the frame marks the highest."
)
REGIONS_HIGHEST = "{n}; the {pool} is {score:+.2f}. The highest part: {2}×{3} pixels at {0}, {1}."
CROP = "{2}×{3} at {0}, {1}"
BESIDE_NOTE = (
    "{photographs} of {scenes}, said to be authentic, lay in the real bank for this question alone. That "
    "they are authentic, and of the same origin, is their supplier's word: nothing here checks it."
)
BESIDE_FROM = "Supplied by {supplier}, {date}."
BESIDE_BY_NOBODY, BESIDE_NO_DATE = "nobody who is named", "no date given"
BESIDE_WITHOUT, BESIDE_WITH = "without them", "with them"
BESIDE_REFUSED = "Not laid beside:"
INFLUENCE_NOTE = (
    "What the score would be if these had not been among the references. A change of the score, no cause."
)
INFLUENCE_NAME = "{name}: all {n} ({label})"
INFLUENCE_ROW = "row {row_id} of {name} ({label})"
NOBODY_LEFT = "nobody would be left to vote"
SAME_IMAGE_NOTE = "These references are copies or near-copies of the image. They did not vote."
NO_PROVENANCE = "Nothing was found. Most images that are shared have lost what their files once said."
NOT_LOOKED_FOR = "Not looked for: a stored embedding was judged, and no file."
PROVENANCE_NOTE = (
    "Anyone can write or remove such entries: they are shown beside the score and have no part in it."
)
SIGNED = " (signed, by a signer on a list of trusted ones)"
DAMAGED = "damaged: it could not be read"
VIEW_NAMES = {
    "jpeg": "JPEG, quality {0}",
    "webp": "WebP, quality {0}",
    "resize": "resized to {0} %",
    "crop": "cropped",
    "blur": "blurred",
    "screenshot": "screenshot",
}

# ---------------------------------------------------------------- reproducing

INDEX, GENERATION, FINGERPRINT, ENCODER, ENGINE = "index", "generation", "fingerprint", "encoder", "engine"
ENCODER_ABOUT = "{name} ({about})"
BANKS, METHOD, PROJECTION, VERSION, EXACT_SCORE = "banks", "method", "projection", "version", "exact score"
BANKS_TEXT = "{n_real:,} real, {n_fake:,} fake, of {generators}"
METHOD_TEXT = "{method}, {k:,} neighbours"
COMMAND_NOTE = "With the same index at the same generation, and the same file:"
LIMITS_TEXT = (
    "The answer says which references the image lies near, as one encoder sees it. It is evidence to "
    "weigh, not a finding about how the image was made.",
    "What counts as fake here is what the fake bank holds: images that a generator made as a whole. "
    "Photographs that were inpainted, upscaled or improved by a phone count only if the bank holds such.",
    "“No sign of the known generators” does not mean authentic: an image of a generator that is in no bank "
    "can score so, and so can a photograph that was edited.",
    "“Fake-like” does not mean made by a generator: photographs of the kinds that the real bank lacks can "
    "score so.",
    "The nearest references are near mostly in subject. They are neither the source of the image nor "
    "proof of anything.",
    "A generator is named only because its references are near. The true tool may be absent from the bank.",
    "Rates of error hold for images like those of the calibration, and for no others: other cameras, "
    "sites, subjects and generators can have other rates.",
    "Recompression, resizing, screenshots and deliberate changes can move the score.",
)

# ---------------------------------------------------------------- many

FILTER, FILTER_TEXT, FILTER_ALL = "Filter", "file name contains", "all"
FILTER_VERDICT, FILTER_GENERATOR = "verdict", "nearest generator"
FILTER_COUNT = "shown: {n} of {of}"
FAILURES = "Could not be judged"
NEAREST_FAKES = "nearest fakes"
OVERVIEW_NOTE = "{judged}: {counts}."
OVERVIEW_ALARMS = (
    "If all were photographs like those of the calibration, about {n:,} of {of:,} would score so high."
)

# ---------------------------------------------------------------- map

MAP_TITLE = "Map of the banks of {index}"
MAP_METHODS = {"pca": "The two principal components", "tsne": "A t-SNE map", "umap": "A UMAP map"}
MAP_NOTE = (
    "{method} of {shown} of the {of} references, by the vectors that the banks are searched by. Two "
    "dimensions distort distances: judge by similarities, not by this map. Each dot says what it is on "
    "hover."
)
MAP_ALL = "all"
MAP_DRAWN = "{n:,}, drawn evenly from every generator and source,"
MAP_BY_FIT = "The image is placed by the same projection as the references."
MAP_BY_NEIGHBOURS = "Each image is placed at the mean of its nearest references, weighted by similarity."
MAP_LABELS = {"real": "photographs", "fake": "fakes"}
MAP_REST = "others"
MAP_ALT = "a map of {n} references; the counts of each kind are in the legend"
DOT = "{label}, {name}, row {row_id}"
