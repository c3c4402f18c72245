"""The routes: what is asked over HTTP, handed to the service, and put into words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.routing import APIRouter
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field

from retrieval_detect.ask.calibrations import calibration_name
from retrieval_detect.ask.fitted import CALIBRATION, read
from retrieval_detect.ask.methods import methods_of
from retrieval_detect.errors import UsageError
from retrieval_detect.names import named, printable
from retrieval_detect.report.html.write import STYLE, evidence_fragment, map_fragment, report_page
from retrieval_detect.report.words import changes
from retrieval_detect.store.select import contributors, count_by, kept_history
from retrieval_detect.types import Facts, Failure, ImageItem, Label
from retrieval_detect.verdicts import Photographs, Question
from retrieval_detect.version import __version__
from retrieval_detect.web.additions import Teacher
from retrieval_detect.web.errors import Refused, add_handlers, body
from retrieval_detect.web.safety import Guard
from retrieval_detect.web.service import Laid, Service
from retrieval_detect.web.thumbnails import LARGEST_SIDE, SIDE, thumbnail
from retrieval_detect.web.uploads import BESIDE, FIELD, LONGEST_NAME, uploads

if TYPE_CHECKING:
    from retrieval_detect.report.html.records import EvidenceView
    from retrieval_detect.report.html.view import Viewer
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.verdicts import Verdict
    from retrieval_detect.web.generations import Serving

_LARGEST_ID = 2**63 - 1
_RATES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2)
_PAGES = files("retrieval_detect.web").joinpath("pages")


class Asked(BaseModel):
    """How images are to be judged; see ``verdicts.Question``. What is left out, the server decides."""

    method: str | None = Field(None, max_length=64)
    k: int | None = Field(None, ge=1, le=100_000)
    projection: str | None = Field(None, max_length=64)
    photographs: Photographs | None = None
    fpr: float | None = Field(None, gt=0, lt=1)
    confidence: float | None = Field(None, gt=0, lt=1)
    source: str | None = Field(None, max_length=LONGEST_NAME)
    within: Literal["source", "format", "size"] | None = None
    prior: float | None = Field(None, gt=0, lt=1)
    stability: int | None = Field(None, ge=1, le=32)
    influence: bool | None = None
    supplier: str | None = Field(None, max_length=LONGEST_NAME, description="Who gave what is laid beside.")
    date: str | None = Field(None, max_length=LONGEST_NAME, description="When it was given.")
    evidence: Literal["html", "report"] | None = Field(
        None, description="Adds the evidence: of each image as HTML, or of all as one page to hand on."
    )

    def question(self, usual: Question) -> Question:
        """The usual question, with what was asked otherwise."""
        others = {"evidence", "supplier", "date"}
        return replace(usual, **self.model_dump(exclude_none=True, exclude=others))

    def laid(self, given: dict[str, list[ImageItem]]) -> Laid | None:
        """What is laid beside the image, if anything is; raises ``UsageError`` where that says nothing."""
        if given[BESIDE] and len(given[FIELD]) > 1:
            hint = "Ask about each by itself: which pictures are of its kind is a question of its own."
            raise UsageError("photographs are laid beside one image at a time", hint=hint)
        if given[BESIDE]:
            return Laid(given[BESIDE], self.supplier, self.date)
        if self.supplier or self.date:
            raise UsageError("no photographs are laid beside", hint=f"Send them: curl -F {BESIDE}=@photo.jpg")
        return None


class Described(BaseModel):
    """What is known about references to add; see ``types.Facts``. What a name may be, ``names`` decides."""

    label: Label
    generator: str = ""
    source: str = ""
    category: str = ""
    licence: str = ""
    contributor: str = ""
    batch: str = ""

    def facts(self) -> Facts:
        """The same for the index; a photograph has no generator."""
        if self.label == "real" and self.generator:
            raise UsageError("a photograph has no generator", hint="Name its source.")
        return named(Facts(**self.model_dump()))


class Back(BaseModel):
    """Which generation to go back to."""

    model_config = ConfigDict(extra="forbid")
    generation: int = Field(ge=0, le=_LARGEST_ID)


def create_app(service: Service, teacher: Teacher) -> FastAPI:
    """The application; it starts ``service`` with itself and ends it."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await teacher.close()
            await service.stop()

    # Its pages of documentation would load scripts from elsewhere; /openapi.json stays.
    app = FastAPI(title="rd", version=__version__, docs_url=None, redoc_url=None, lifespan=life)
    app.state.service, app.state.teacher = service, teacher
    app.include_router(_router)
    app.include_router(_v1)
    app.mount("/static", StaticFiles(packages=[("retrieval_detect.web", "pages/static")]))
    app.add_middleware(Guard, settings=service.settings)
    add_handlers(app)
    return app


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _teacher(request: Request) -> Teacher:
    teacher: Teacher = request.app.state.teacher
    return teacher


_Service = Annotated[Service, Depends(_service)]
_Teacher = Annotated[Teacher, Depends(_teacher)]


async def _known(request: Request) -> None:
    """What a route does not know may be a slip of the pen, and must not be passed over in silence."""
    path, method = request.scope["route"].path, request.method.lower()
    listed = request.app.openapi()["paths"][path].get(method, {}).get("parameters", ())
    known = [one["name"] for one in listed if one["in"] == "query"]
    hint = f"There are: {', '.join(known)}" if known else "This address takes none."
    for name in request.query_params:
        shown = printable(name)[:LONGEST_NAME]
        if name not in known:
            raise Refused(422, "invalid", f"there is no parameter {shown!r} here", hint=hint)
        if len(request.query_params.getlist(name)) > 1:
            raise Refused(422, "invalid", f"the parameter {shown!r} is given twice", hint="Give it once.")


async def _asked_about(request: Request, service: _Service) -> dict[str, list[ImageItem]]:
    service.require_room()  # before megabytes are received that would be turned away
    return await uploads(request, service.decoders, service.settings, fields=(FIELD, BESIDE))


async def _to_learn(request: Request, service: _Service, teacher: _Teacher) -> list[ImageItem]:
    teacher.require_room()
    return (await uploads(request, service.decoders, service.settings))[FIELD]


_router = APIRouter()
_v1 = APIRouter(dependencies=[Depends(_known)])
_FILES = {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}


def _form(*fields: str) -> dict[str, Any]:
    """The form that ``uploads`` reads, as OpenAPI describes it."""
    schema = {
        "type": "object",
        "required": [FIELD],
        "additionalProperties": False,
        "properties": dict.fromkeys(fields, _FILES),
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


class Wrong(BaseModel):
    """What every answer holds that is an error: a code for programs, a sentence, what can be done."""

    error: str
    message: str
    hint: str


def _wrong(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Wrong} for status in (*statuses, 422, 500, 503)}


# ---------------------------------------------------------------- page


@_router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def page() -> str:
    """The page."""
    return _PAGES.joinpath("index.html").read_text(encoding="utf-8")


@_router.get("/static/evidence.css", include_in_schema=False)
async def style() -> Response:
    """How evidence looks, here and in reports."""
    return Response(STYLE, media_type="text/css")


@_router.get("/healthz", responses={503: {"model": Wrong}})
async def health(service: _Service, teacher: _Teacher) -> JSONResponse:
    """Whether the server answers, and by which generation.

    ``stale``: a newer generation cannot be used, the one named answers. ``stuck`` (503): threads or processes
    that answer are gone, or have been at one thing for too long; the message names them.
    """
    generation = service.generations.serving.generation
    wrong = [*service.trouble(), *filter(None, [teacher.trouble(service.settings.stuck_s)])]
    if wrong:
        said = body("stuck", "; ".join(wrong), "Start the server anew; its log may say why.")
        return JSONResponse({"status": "stuck", "generation": generation, **said}, 503)
    status = "stale" if service.generations.trouble else "ok"
    return JSONResponse({"status": status, "generation": generation})


@_router.get("/metrics", response_class=Response)
async def metrics(service: _Service) -> Response:
    """Counters in the text format of Prometheus."""
    service.metrics.generation.set(service.generations.serving.generation)
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


# ---------------------------------------------------------------- asking


@_v1.post("/v1/query", openapi_extra=_form(FIELD, BESIDE), responses=_wrong(400, 408, 413, 429))
async def query(
    service: _Service,
    given: Annotated[dict[str, list[ImageItem]], Depends(_asked_about)],
    asked: Annotated[Asked, Query()],
) -> JSONResponse:
    """Judge one or many images by their nearest references.

    ``results`` holds, in the order of the images, what ``rd query --json`` prints: a verdict, or why there
    is none; ``evidence`` or ``report`` the HTML that was asked for. Where no image could be used the status
    is 422, and ``results`` says why. Files called ``beside`` are photographs known to be authentic, laid
    beside one image for this question alone; nothing of them is kept, either.
    """
    question, images = asked.question(service.settings.question), given[FIELD]
    serving, results = await service.ask(images, question, asked.laid(given))
    answer: dict[str, Any] = {"results": [result.to_dict() for result in results]}
    failed = all(isinstance(result, Failure) for result in results)
    views: list[EvidenceView | None] = []
    for result, item in zip(results, images, strict=True) if asked.evidence else ():
        draw = partial(_view, serving.viewer, item, question)
        views.append(None if isinstance(result, Failure) else await service.showing.run(draw, result))
    if asked.evidence == "html":
        answer["evidence"] = [view and evidence_fragment(view) for view in views]
    elif asked.evidence == "report" and not failed:
        failures = [result for result in results if isinstance(result, Failure)]
        made = partial(report_page, [view for view in views if view], failures=failures)
        answer["report"] = await service.showing.run(made)
    return JSONResponse(answer, 422 if failed else 200)


def _view(viewer: Viewer, item: ImageItem, question: Question, verdict: Verdict) -> EvidenceView:
    return viewer.view(verdict, item.read(), question=question)


@_v1.get("/v1/references/{row_id}/thumbnail", response_class=Response, responses=_wrong(404))
async def reference(
    service: _Service,
    row_id: Annotated[int, Path(ge=0, le=_LARGEST_ID)],
    side: Annotated[int, Query(ge=16, le=LARGEST_SIDE)] = SIDE,
) -> Response:
    """A picture of a reference (WebP), at most ``side`` pixels long.

    Of its file, where that is still at hand, else the small one that the index may keep.
    """
    snapshot = service.generations.serving.detector.snapshot
    found = await service.decoding.run(partial(thumbnail, side=side), snapshot, row_id, service.decoders)
    if found is None:
        hint = "Its file has gone or changed, and the index keeps none (see --thumbnails)."
        raise Refused(404, "not-found", "there is no picture of this reference", hint=hint)
    return Response(found, media_type="image/webp", headers={"Cache-Control": "private, max-age=3600"})


# ---------------------------------------------------------------- banks


@_v1.get("/v1/banks", responses=_wrong())
async def banks(service: _Service) -> dict[str, Any]:
    """What is in the banks, how they can be asked, and what can be gone back to.

    ``methods`` : of each its ``rates``, those of false alarms that its calibration is large enough for, none
    where it has none. ``asked`` : what is asked where a question says nothing else.
    """
    return await asyncio.to_thread(_banks, service.generations.serving, service.settings.question)


@_v1.get("/v1/banks/map", responses=_wrong())
async def bank_map(service: _Service) -> dict[str, str]:
    """The banks in two dimensions, as HTML."""
    viewer = service.generations.serving.viewer
    return {"html": await service.showing.run(lambda: map_fragment(viewer.bank_map()))}


def _banks(serving: Serving, usual: Question) -> dict[str, Any]:
    snapshot, index = serving.detector.snapshot, serving.detector.reference
    gave = contributors(snapshot)
    history = [
        {name: row[name] for name in ("generation", "created_at", "operation", "added", "removed")}
        | {"what": changes(row["changes"]), "contributors": gave.get(row["generation"], [])}
        for row in kept_history(snapshot)
    ]
    return {
        "index": {"name": index.name, "generation": index.generation, "fingerprint": index.fingerprint},
        "encoder": snapshot.manifest.encoder.name,
        "encoder_note": snapshot.manifest.encoder.note,
        "references": {"real": index.n_real, "fake": index.n_fake},
        "counts": count_by(snapshot, None),
        "methods": [{"name": name, "rates": _rates(snapshot, name)} for name in methods_of(snapshot)],
        "asked": {name: getattr(usual, name) for name in ("method", "photographs", "fpr")},
        "history": history,
    }


def _rates(snapshot: Snapshot, method: str) -> list[float]:
    """The rates of false alarms that can be asked of a method."""
    found = read(snapshot, CALIBRATION, calibration_name(method, snapshot.manifest.projection))
    return [rate for rate in _RATES if found and not found.lacking(Question(method, fpr=rate))]


@_v1.post("/v1/banks/references", openapi_extra=_form(FIELD), responses=_wrong(400, 401, 408, 409, 413, 429))
async def plan_references(
    teacher: _Teacher,
    images: Annotated[list[ImageItem], Depends(_to_learn)],
    described: Annotated[Described, Query()],
) -> dict[str, Any]:
    """Say what adding these images would do. Nothing is written; ``plan`` is what to confirm."""
    return await teacher.plan(images, described.facts())


@_v1.post("/v1/banks/references/{plan}", responses=_wrong(400, 401, 409))
async def add_references(
    service: _Service, teacher: _Teacher, plan: Annotated[str, Path(max_length=64)]
) -> dict[str, Any]:
    """Add what a plan says, as one generation, unless false alarms would rise too far.

    While something else writes to the index the status is 409, and the plan can be tried again.
    """
    report = await teacher.apply(plan)
    await service.generations.refresh()
    return report


@_v1.post("/v1/banks/rollback", responses=_wrong(400, 401, 409))
async def rollback(service: _Service, teacher: _Teacher, back: Back) -> dict[str, Any]:
    """Go back to an older generation, as a new one."""
    manifest = await teacher.rollback(back.generation)
    await service.generations.refresh()
    return {"generation": manifest.generation, "rolled_back_to": back.generation}


@_v1.get("/v1/token", responses=_wrong(401))
async def token() -> dict[str, bool]:
    """Whether the token that is sent is the server's: if not, the status is 401."""
    return {"valid": True}
