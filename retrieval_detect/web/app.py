"""The routes: what is asked over HTTP, handed to the service, and put into words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Depends, FastAPI, File, Path, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.routing import APIRouter
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

from retrieval_detect import __version__
from retrieval_detect.errors import (
    BadName,
    EmptyBank,
    ImageError,
    IndexLocked,
    LabelConflict,
    RdError,
    UsageError,
)
from retrieval_detect.names import named, printable
from retrieval_detect.report.html.write import STYLE, evidence_fragment, map_fragment
from retrieval_detect.report.json import failure_json, verdict_json
from retrieval_detect.store.select import count_by, kept_history
from retrieval_detect.types import Facts, Failure, Label
from retrieval_detect.verdicts import Question
from retrieval_detect.web.safety import Guard
from retrieval_detect.web.service import Busy, Service
from retrieval_detect.web.teaching import Teacher
from retrieval_detect.web.thumbnails import thumbnail

if TYPE_CHECKING:
    from retrieval_detect.types import ImageItem
    from retrieval_detect.verdicts import Verdict
    from retrieval_detect.web.generations import Serving

_LONGEST_NAME = 200
_LARGEST_ID = 2**63 - 1
_STATUS: Sequence[tuple[type[RdError], int]] = (
    (Busy, 429),
    (IndexLocked, 409),
    (LabelConflict, 409),
    (EmptyBank, 409),
    (ImageError, 422),
    (BadName, 422),
    (UsageError, 400),
)
_PAGES = files("retrieval_detect.web").joinpath("pages")


class Asked(BaseModel):
    """How images are to be judged; see ``verdicts.Question``. What is left out, the server decides."""

    method: str | None = Field(None, max_length=64)
    k: int | None = Field(None, ge=1, le=100_000)
    projection: str | None = Field(None, max_length=64)
    fpr: float | None = Field(None, gt=0, lt=1)
    confidence: float | None = Field(None, gt=0, lt=1)
    source: str | None = Field(None, max_length=_LONGEST_NAME)
    within: Literal["source", "format", "size"] | None = None
    prior: float | None = Field(None, gt=0, lt=1)
    stability: int | None = Field(None, ge=1, le=32)
    influence: bool | None = None
    evidence: Literal["html"] | None = Field(None, description="Adds the evidence of each image as HTML.")

    def question(self, usual: Question) -> Question:
        """The usual question, with what was asked otherwise."""
        return replace(usual, **self.model_dump(exclude_none=True, exclude={"evidence"}))


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

    generation: int = Field(ge=0, le=_LARGEST_ID)


def create_app(service: Service, teacher: Teacher) -> FastAPI:
    """The application; it starts ``service`` with itself and ends it."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()
            teacher.close()

    # Its pages of documentation would load scripts from elsewhere; /openapi.json stays.
    app = FastAPI(title="rd", version=__version__, docs_url=None, redoc_url=None, lifespan=life)
    app.state.service, app.state.teacher = service, teacher
    app.include_router(_router)
    app.mount("/static", StaticFiles(packages=[("retrieval_detect.web", "pages/static")]))
    app.add_middleware(Guard, settings=service.settings)
    app.add_exception_handler(RdError, _explain)
    app.add_exception_handler(RequestValidationError, _invalid)
    return app


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _teacher(request: Request) -> Teacher:
    teacher: Teacher = request.app.state.teacher
    return teacher


_Service = Annotated[Service, Depends(_service)]
_Teacher = Annotated[Teacher, Depends(_teacher)]
_router = APIRouter()

# ---------------------------------------------------------------- errors


async def _explain(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RdError)  # noqa: S101 - registered for no other
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    body = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Busy) else None
    return JSONResponse(body, status, headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Which field is wrong and why, without what was sent: that may be anything."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for no other
    wrong = [f"{'.'.join(map(str, e['loc'][1:])) or 'request'}: {e['msg']}" for e in error.errors()]
    return JSONResponse({"error": "invalid", "message": printable("; ".join(wrong)[:1000]), "hint": ""}, 422)


# ---------------------------------------------------------------- page


@_router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def page() -> str:
    """The page."""
    return _PAGES.joinpath("index.html").read_text(encoding="utf-8")


@_router.get("/static/evidence.css", include_in_schema=False)
async def style() -> Response:
    """How evidence looks, here and in reports."""
    return Response(STYLE, media_type="text/css")


@_router.get("/healthz")
async def health(service: _Service) -> dict[str, Any]:
    """Whether the server answers, and by which generation."""
    trouble = bool(service.generations.trouble)
    return {"status": "stale" if trouble else "ok", "generation": service.generations.serving.generation}


@_router.get("/metrics", response_class=Response)
async def metrics(service: _Service) -> Response:
    """Counters in the text format of Prometheus."""
    service.metrics.generation.set(service.generations.serving.generation)
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


# ---------------------------------------------------------------- asking


@_router.post(
    "/v1/query", responses={400: {}, 422: {"description": "No image could be used."}, 413: {}, 429: {}}
)
async def query(
    service: _Service, images: Annotated[list[UploadFile], File()], asked: Annotated[Asked, Query()]
) -> JSONResponse:
    """Judge one or many images by their nearest references.

    ``results`` holds, in the order of the images, what ``rd query --json`` prints: a verdict, or why there
    is none.
    """
    items = _items(images, service)
    question = asked.question(service.settings.question)
    serving, results = await service.ask(items, question)
    body: dict[str, Any] = {"results": [_as_json(result) for result in results]}
    if asked.evidence:
        body["evidence"] = [
            None
            if isinstance(result, Failure)
            else await service.show(partial(_fragment, serving, result, item, question))
            for result, item in zip(results, items, strict=True)
        ]
    return JSONResponse(body, 422 if all(isinstance(result, Failure) for result in results) else 200)


def _items(images: Sequence[UploadFile], service: Service) -> list[ImageItem]:
    if len(images) > service.settings.files:
        raise UsageError(f"{len(images)} images at once, the limit is {service.settings.files}")
    most = service.settings.file_bytes
    return [service.decoders.item(_name(u.filename), partial(_read, u, most)) for u in images]


def _name(given: str | None) -> str:
    """The last part of a file's name, short and printable."""
    last = (given or "").replace("\\", "/").rpartition("/")[2]
    return "".join(c if c.isprintable() else "�" for c in printable(last))[:_LONGEST_NAME] or "image"


def _read(upload: UploadFile, most_bytes: int) -> bytes:
    upload.file.seek(0)
    data = upload.file.read(most_bytes + 1)
    if len(data) > most_bytes:
        message = f"the file is too large: the limit is {most_bytes:,} bytes"
        raise ImageError(message, reason="too-many-bytes")
    return data


def _as_json(result: Verdict | Failure) -> dict[str, Any]:
    return failure_json(result) if isinstance(result, Failure) else verdict_json(result)


def _fragment(serving: Serving, verdict: Verdict, item: ImageItem, question: Question) -> str:
    return evidence_fragment(serving.viewer.view(verdict, item.read(), question=question))


@_router.get("/v1/references/{row_id}/thumbnail", response_class=Response, responses={404: {}})
async def reference(service: _Service, row_id: Annotated[int, Path(ge=0, le=_LARGEST_ID)]) -> Response:
    """A small picture of a reference (WebP), where its file is still at hand."""
    snapshot = service.generations.serving.detector.snapshot
    found = await service.decode(partial(thumbnail, snapshot, row_id, service.decoders))
    if found is None:
        return JSONResponse({"error": "not-found", "message": "there is no picture of this reference"}, 404)
    return Response(found, media_type="image/webp", headers={"Cache-Control": "private, max-age=3600"})


# ---------------------------------------------------------------- banks


@_router.get("/v1/banks")
async def banks(service: _Service) -> dict[str, Any]:
    """What is in the banks, and what can be gone back to."""
    return await asyncio.to_thread(_banks, service.generations.serving)


@_router.get("/v1/banks/map")
async def bank_map(service: _Service) -> dict[str, str]:
    """The banks in two dimensions, as HTML."""
    viewer = service.generations.serving.viewer
    return {"html": await service.show(lambda: map_fragment(viewer.bank_map()))}


def _banks(serving: Serving) -> dict[str, Any]:
    snapshot, index = serving.detector.snapshot, serving.detector.reference
    history = [
        {name: row[name] for name in ("generation", "created_at", "operation", "added", "removed")}
        for row in kept_history(snapshot)
    ]
    return {
        "index": {"name": index.name, "generation": index.generation, "fingerprint": index.fingerprint},
        "encoder": snapshot.manifest.encoder.name,
        "references": {"real": index.n_real, "fake": index.n_fake},
        "counts": count_by(snapshot, None),
        "history": history,
    }


@_router.post("/v1/banks/references", responses={400: {}, 401: {}, 409: {}})
async def plan_references(
    service: _Service,
    teacher: _Teacher,
    images: Annotated[list[UploadFile], File()],
    described: Annotated[Described, Query()],
) -> dict[str, Any]:
    """Say what adding these images would do. Nothing is written; ``plan`` is what to confirm."""
    return await asyncio.to_thread(teacher.plan, _items(images, service), described.facts())


@_router.post("/v1/banks/references/{plan}", responses={400: {}, 401: {}, 409: {}})
async def add_references(
    service: _Service, teacher: _Teacher, plan: Annotated[str, Path(max_length=64)]
) -> dict[str, Any]:
    """Add what a plan says, as one generation, unless false alarms would rise too far."""
    report = await asyncio.to_thread(teacher.apply, plan)
    await service.generations.refresh()
    return report


@_router.post("/v1/banks/rollback", responses={400: {}, 401: {}, 409: {}})
async def rollback(service: _Service, teacher: _Teacher, back: Back) -> dict[str, Any]:
    """Go back to an older generation, as a new one."""
    manifest = await asyncio.to_thread(teacher.rollback, back.generation)
    await service.generations.refresh()
    return {"generation": manifest.generation, "rolled_back_to": back.generation}
