"""The texts of the admin in both languages, and which of them a browser gets."""

from __future__ import annotations

from typing import Final

from connecthub.words import common, frame, job_form, jobs, overview, people, runs

# One file per part of the admin; both languages of a text stand side by side, so that none can be missing.
CATALOGUES: Final = (
    common.TEXTS,
    frame.TEXTS,
    overview.TEXTS,
    people.TEXTS,
    jobs.TEXTS,
    job_form.TEXTS,
    runs.TEXTS,
)
TEXTS: Final = {key: texts for catalogue in CATALOGUES for key, texts in catalogue.items()}
LANGUAGES: Final = {
    "en": {key: english for key, (english, _) in TEXTS.items()},
    "zh": {key: chinese for key, (_, chinese) in TEXTS.items()},
}


class _Number(int):
    """A number in a text: `{n:Job|Jobs}` is the number with the noun that goes with it."""

    def __format__(self, spec: str) -> str:
        if "|" not in spec:
            return super().__format__(spec)
        one, many = spec.split("|")
        return f"{int(self):,} {one if self == 1 else many}"


def say(language: str, key: str, **values: object) -> str:
    """The text of `key`; `values` fill its places."""
    for name, value in values.items():
        if type(value) is int:
            values[name] = _Number(value)
    return LANGUAGES[language][key].format(**values)


def say_reason(language: str, reason: str) -> str:
    """A reason of a run in words; one that has none yet stays what it is."""
    return LANGUAGES[language].get(f"reason.{reason}", reason)


def choose(accept_language: str) -> str:
    """The language of an Accept-Language header: the better ranked of ours, English where it names none."""
    best, rank = "en", 0.0
    for part in accept_language.split(","):
        tag, _, parameter = part.strip().partition(";")
        language = tag.strip().lower().split("-")[0]
        name, _, number = parameter.strip().partition("=")
        try:
            quality = float(number) if name == "q" else 1.0
        except ValueError:
            continue
        if language in LANGUAGES and quality > rank:
            best, rank = language, quality
    return best
