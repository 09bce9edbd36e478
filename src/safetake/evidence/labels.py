"""The words of a report that are not evidence: its headings and marks, in English and Korean.

What evidence itself says (names of checks, answers, problems) stays as it was written down.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from safetake.wording import duration, printable, size

LANGUAGES = ("en", "ko")

LABELS: dict[str, tuple[str, str]] = {
    "verify": ("Proof", "검증"),
    "restore": ("Restore", "복원"),
    "drill": ("Drill", "복구 훈련"),
    "runbook": ("Incident report", "장애 보고서"),
    "kit": ("Recovery kit", "복구 키트"),
    "passed": ("passed", "통과"),
    "failed": ("failed", "실패"),
    "ok": ("ok", "정상"),
    "FAILED": ("FAILED", "실패"),
    "MISSED": ("MISSED", "미달"),
    "unknown": ("unknown", "미확인"),
    "no_target": ("no target", "목표 없음"),
    "all_good": ("all of {count} checks are good", "검사 {count}개 모두 정상"),
    "one_good": ("its one check is good", "검사 1개 정상"),
    "some_bad": ("{bad} of {count} checks failed", "검사 {count}개 중 {bad}개 실패"),
    "none": ("nothing was checked", "검사 없음"),
    "some_unknown": ("{count} steps unknown", "미확인 단계 {count}개"),
    "one_unknown": ("1 step unknown", "미확인 단계 1개"),
    "when": ("{at}, {took} in all", "{at}, 총 {took}"),
    "problems": ("What failed", "실패한 항목"),
    "more": ("… and {count} more, below", "… 외 {count}건 (아래)"),
    "missed": (
        "{name} missed its target: {found}, promised {target}",
        "{name} 목표 미달: {found}, 목표 {target}",
    ),
    "not_measured": ("not measured", "측정되지 않음"),
    "step_slow": ("{name}: {took}, at most {target}", "{name}: {took}, 목표 {target}"),
    "check_bad": (
        "{name}: expected {expected}, found {found}",
        "{name}: 기대 {expected}, 결과 {found}",
    ),
    "unknowns": ("What stayed unknown", "확인되지 않은 것"),
    "measured_heading": ("Measured, and promised", "측정값과 목표"),
    "measured": ("measured", "측정값"),
    "target": ("target", "목표"),
    "rto_seconds": ("time to recovery (RTO)", "복구 시간 (RTO)"),
    "partial_rto_seconds": ("time to recovery of parts (RTO)", "부분 복구 시간 (RTO)"),
    "rpo_seconds": ("age of the data (RPO)", "데이터 시점 차이 (RPO)"),
    "timeline": ("Timeline", "진행 과정"),
    "timeline_of": ("timeline of {count} steps", "{count}단계 진행 과정"),
    "bytes": ("size of the data", "데이터 크기"),
    "at_most": ("at most {target}", "목표 {target}"),
    "all_by": ("RTO until {at}", "RTO 기한 {at}"),
    "late": ("after the RTO", "RTO 이후"),
    "at": ("at", "시각"),
    "step": ("step", "단계"),
    "took": ("took", "소요"),
    "checks": ("Checks ({count})", "검사 ({count})"),
    "source": ("source", "소스"),
    "check": ("check", "검사"),
    "expected": ("expected", "기대"),
    "found": ("found", "결과"),
    "notes": ("Notes", "기록"),
    "document": ("This document", "이 문서"),
    "began": ("began", "시작"),
    "ended": ("ended", "종료"),
    "by": ("by", "수행"),
    "by_whom": ("{user} on {host}", "{user} ({host})"),
    "repository": ("repository", "저장소"),
    "snapshot": ("snapshot", "스냅샷"),
    "with": ("with", "버전"),
    "id": ("id", "ID"),
    "about_id": (
        "The id is the SHA-256 of the document's canonical form; `safetake evidence verify` "
        "compares it with the repository.",
        "ID는 문서 표준형의 SHA-256이며 `safetake evidence verify`가 저장소와 비교합니다.",
    ),
    "review": ("For the review", "사후 검토"),
    "review_what": ("What happened", "발생 내용"),
    "review_why": ("Root cause", "근본 원인"),
    "review_impact": ("Who was affected", "영향 범위"),
    "review_actions": (
        "What is done against it, by whom, until when",
        "재발 방지 조치, 담당자, 기한",
    ),
}  # fmt: skip

Say = Callable[..., str]


def speaker(language: str) -> Say:
    """The labels in a language (`ko`, or English), their gaps filled."""
    column = 1 if language == "ko" else 0

    def say(key: str, **gaps: object) -> str:
        return LABELS[key][column].format(**gaps)

    return say


def visible(text: str) -> str:
    """Without what a terminal obeys or what turns words around: such characters by their code."""
    return "".join(c if c.isspace() else printable(c) for c in text)


def escaped(text: str) -> str:
    """Text for HTML."""
    return escape(visible(text))


def quantity(name: str, say: Say) -> str:
    """What was measured, in words: `rto_seconds`, and what a drill names itself."""
    return say(name) if name in LABELS else name.removesuffix("_seconds").replace("_", " ")


def amount(name: str, value: float | None) -> str:
    """A measured value for people: spans of time, sizes, other numbers; nothing for None."""
    if value is None:
        return ""
    if name.endswith("_seconds"):
        return duration(value)
    if name.endswith("bytes"):
        return size(value)
    return f"{value:,.3f}".rstrip("0").rstrip(".")
