"""Every text of the runbook in English and Korean, and which of the two is wanted.

Each key has both; a test holds that, and that both have the same gaps.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

LANGUAGES = ("en", "ko")

TABLE: dict[str, dict[str, str]] = {
    # ----------------------------------------------------------------- the frame
    "title": {"en": "Emergency recovery", "ko": "긴급 복구"},
    "begin": {
        "en": "Runbook {id}, begun {time}: ten steps. Nothing is replaced before step 4, "
        "which asks first.",
        "ko": "런북 {id}, 시작 {time}: 10단계. 4단계에서 묻기 전에는 아무것도 교체하지 않습니다.",
    },
    "manners": {
        "en": "Enter takes the answer in brackets. Ctrl-C stops; `safetake runbook --resume` "
        "goes on.",
        "ko": "Enter를 누르면 대괄호 안의 답을 씁니다. Ctrl-C로 멈추고 "
        "`safetake runbook --resume`으로 이어갑니다.",
    },
    "resumed": {
        "en": "Going on with runbook {id}: {done} of 10 steps are done.",
        "ko": "런북 {id}을(를) 이어갑니다: 10단계 중 {done}단계 완료.",
    },
    "damaged_open": {
        "en": "An earlier runbook cannot be read, and may be an unfinished recovery: {folder} "
        "({why}). `safetake restore --list` shows what was restored, and what is still open. "
        "Once you know: `mv {folder} {folder}.damaged`",
        "ko": "이전 런북을 읽을 수 없습니다. 끝나지 않은 복구일 수 있습니다: {folder} ({why}). "
        "`safetake restore --list`로 복원된 것과 진행 중인 복원을 확인하세요. "
        "확인한 뒤에는: `mv {folder} {folder}.damaged`",
    },
    "damaged_ended": {
        "en": "An earlier runbook cannot be read; it had ended: {folder} ({why}). To keep it for "
        "the review, and out of here: `mv {folder} {folder}.damaged`",
        "ko": "이전 런북을 읽을 수 없습니다. 이미 끝난 것입니다: {folder} ({why}). "
        "검토를 위해 보관하려면: `mv {folder} {folder}.damaged`",
    },
    "step1": {"en": "Backups available", "ko": "백업 확인"},
    "step2": {"en": "RTO set", "ko": "RTO 설정"},
    "step3": {"en": "Current state saved", "ko": "현재 상태 저장"},
    "step4": {"en": "Restore run", "ko": "복원 실행"},
    "step5": {"en": "Integrity verified", "ko": "무결성 검증"},
    "step6": {"en": "Services restarted", "ko": "서비스 재시작"},
    "step7": {"en": "Application tested", "ko": "애플리케이션 테스트"},
    "step8": {"en": "Monitoring and logs checked", "ko": "모니터링 및 로그 확인"},
    "step9": {"en": "Stakeholders told", "ko": "관계자 통보"},
    "step10": {"en": "Review meeting scheduled", "ko": "사후 검토 회의 일정"},
    "ok": {"en": "ok", "ko": "완료"},
    "unknown": {"en": "unknown", "ko": "미확인"},
    "failed": {"en": "FAILED", "ko": "실패"},
    "took": {"en": "took {took}", "ko": "소요 {took}"},
    "of_rto": {"en": "{used} of {rto} RTO", "ko": "RTO {rto} 중 {used}"},
    "over_rto": {"en": "{used}: the RTO of {rto} is over", "ko": "{used}: RTO {rto} 초과"},
    "error": {"en": "error: {text}", "ko": "오류: {text}"},
    "hint": {"en": "hint: {text}", "ko": "도움말: {text}"},
    "more": {"en": "… and {count} more", "ko": "… 외 {count}건"},
    "not_an_answer": {
        "en": "Please answer one of: {options}",
        "ko": "다음 중에서 고르세요: {options}",
    },
    "stopped": {
        "en": "stopped at step {step}, {name}: nothing after it was done",
        "ko": "{step}단계({name})에서 멈췄습니다: 이후 단계는 실행되지 않았습니다",
    },
    "stopped_hint": {
        "en": "`safetake runbook --resume` goes on there, `--abandon` ends it",
        "ko": "`safetake runbook --resume`으로 이어가고, `--abandon`으로 끝냅니다",
    },
    "working": {"en": "\u2026 {took}", "ko": "… {took}"},
    "doing_stage": {
        "en": "getting {name} ready beside the live data",
        "ko": "{name} 준비 중 (운영 데이터는 그대로)",
    },
    "doing_check": {"en": "checking {name}, not live yet", "ko": "{name} 검사 중 (교체 전)"},
    "doing_stop": {"en": "stopping {name}", "ko": "{name} 중지 중"},
    "doing_quiet": {"en": "waiting until nobody uses {name}", "ko": "{name} 사용 종료 대기 중"},
    "doing_safety": {"en": "saving {name} as it is now", "ko": "{name} 현재 상태 저장 중"},
    "doing_switch": {"en": "replacing {name}", "ko": "{name} 교체 중"},
    "doing_confirm": {"en": "checking {name} in its place", "ko": "{name} 교체 후 검사 중"},
    "doing_start": {"en": "starting {name}", "ko": "{name} 시작 중"},
    "doing_health": {"en": "waiting until the services are well", "ko": "서비스 정상화 대기 중"},
    # ----------------------------------------------------------------- answers
    "yes": {"en": "yes", "ko": "예"},
    "no": {"en": "no", "ko": "아니오"},
    "not_known": {"en": "unknown", "ko": "모름"},
    "again": {"en": "again", "ko": "다시"},
    "stop": {"en": "stop", "ko": "중단"},
    "older": {"en": "older", "ko": "이전"},
    "anyway": {"en": "anyway", "ko": "계속"},
    "undo": {"en": "undo", "ko": "되돌리기"},
    "open": {"en": "open", "ko": "열기"},
    "read": {"en": "read", "ko": "읽기"},
    "skip": {"en": "skip", "ko": "생략"},
    "resume": {"en": "resume", "ko": "재개"},
    "rollback": {"en": "rollback", "ko": "롤백"},
    # ----------------------------------------------------------------- 1
    "found_snapshots": {
        "en": "snapshots: {count}; the newest: {id} of {time}, {age} old, {rung}",
        "ko": "스냅샷 {count}개; 최신: {id} ({time}), {age} 전, 등급 {rung}",
    },
    "no_snapshots": {
        "en": "there is no snapshot to restore in {place}",
        "ko": "{place}에 복원할 스냅샷이 없습니다",
    },
    "no_snapshots_hint": {
        "en": "look for another repository (a second copy, [copies]) and use its configuration",
        "ko": "다른 저장소(두 번째 사본, [copies])를 찾아 그 설정을 사용하세요",
    },
    "q_snapshot": {"en": "Restore which snapshot?", "ko": "어떤 스냅샷을 복원할까요?"},
    "no_such_snapshot": {
        "en": "no snapshot, or more than one, begins with {id}",
        "ko": "{id}(으)로 시작하는 스냅샷이 없거나 여러 개입니다",
    },
    "q_level": {
        "en": "Prove it first: open its stores, only read every byte, or skip?",
        "ko": "먼저 검증할까요: 저장소 열기, 전체 읽기만, 또는 생략?",
    },
    "proven": {
        "en": "snapshot {id} is proven: {rung}, {size} in {seconds}",
        "ko": "스냅샷 {id} 검증됨: {rung}, {size}, {seconds}",
    },
    "not_proven": {"en": "snapshot {id} is NOT proven", "ko": "스냅샷 {id} 검증 실패"},
    "proof_skipped": {
        "en": "snapshot {id} was not proven now; its rung is {rung}",
        "ko": "스냅샷 {id}은(는) 지금 검증하지 않았습니다; 등급 {rung}",
    },
    "q_not_proven": {
        "en": "Take an older one, go on anyway, or stop?",
        "ko": "이전 스냅샷을 쓸까요, 그래도 계속할까요, 중단할까요?",
    },
    "q_unreadable": {
        "en": "The repository cannot be read. Try again, or stop?",
        "ko": "저장소를 읽을 수 없습니다. 다시 시도할까요, 중단할까요?",
    },
    "not_in_it": {
        "en": "{name} is not in this snapshot; the newest that has it: {id} of {time}",
        "ko": "{name}: 이 스냅샷에 없습니다. 포함된 최신 스냅샷: {id} ({time})",
    },
    "newer_elsewhere": {
        "en": "{name}: a newer snapshot has it, too: {id} of {time}",
        "ko": "{name}: 더 최신 스냅샷이 있습니다: {id} ({time})",
    },
    # ----------------------------------------------------------------- 2
    "objective": {
        "en": "{name}: RTO {rto}, last restore {measured}, predicted {predicted}",
        "ko": "{name}: RTO {rto}, 최근 복원 {measured}, 예상 {predicted}",
    },
    "no_objective": {
        "en": "the configuration promises no RTO ([objectives]): {rto} is only a proposal",
        "ko": "설정에 RTO가 없습니다([objectives]): {rto}은(는) 제안일 뿐입니다",
    },
    "nothing_measured": {
        "en": "how long it takes is unknown: no restore was measured here",
        "ko": "소요 시간을 알 수 없습니다: 이곳에서 측정된 복원이 없습니다",
    },
    "q_rto": {
        "en": "Everything must work again within what time (90s, 15m, 1h)?",
        "ko": "얼마 안에 정상화해야 합니까 (90s, 15m, 1h)?",
    },
    "q_began": {
        "en": "The incident began how long ago (15m, 1h; 0s: just now)?",
        "ko": "장애가 얼마 전에 시작되었습니까 (15m, 1h; 0s: 방금)?",
    },
    "rto_set": {
        "en": "RTO {rto}: it has to work again by {until}",
        "ko": "RTO {rto}: {until}까지 정상화해야 합니다",
    },
    "no_span": {
        "en": "{text} is no span of time: write 90s, 15m, 6h or 1d",
        "ko": "{text}은(는) 시간이 아닙니다: 90s, 15m, 6h, 1d처럼 쓰세요",
    },
    # ----------------------------------------------------------------- 3
    "q_sources": {
        "en": "Restore which sources (names, or all)?",
        "ko": "어떤 소스를 복원할까요 (이름 또는 all)?",
    },
    "no_such_source": {"en": "there is no source {name}", "ko": "소스 {name}이(가) 없습니다"},
    "bare": {
        "en": "the configuration names no live stores: {sources} will be restored beside, "
        "nothing is overwritten",
        "ko": "설정에 운영 저장소가 없습니다: {sources}을(를) 별도 폴더에 복원하며 "
        "아무것도 덮어쓰지 않습니다",
    },
    "gap": {
        "en": "what was written after {time} ({gap} before the incident) does not come back",
        "ko": "{time} (장애 {gap} 전) 이후에 기록된 내용은 돌아오지 않습니다",
    },
    "now_absent": {
        "en": "{name}: there is nothing there now",
        "ko": "{name}: 현재 아무것도 없습니다",
    },
    "now_damaged": {
        "en": "{name}: damaged; saved as raw files: {why}",
        "ko": "{name}: 손상됨, 원본 파일 그대로 저장: {why}",
    },
    "now_there": {
        "en": "{name}: saved as a snapshot before it is replaced ({size} come back)",
        "ko": "{name}: 교체 전에 스냅샷으로 저장 (복원 {size})",
    },
    "losses": {
        "en": "{name}: {what}: {newer} will be lost, {changed} go back to an older state, "
        "{missing} come back",
        "ko": "{name}: {what}: 손실 {newer}, 이전 값 복귀 {changed}, 복구 {missing}",
    },
    "losses_unknown": {
        "en": "{name}: {what}: what will be lost is unknown: {why}",
        "ko": "{name}: {what}: 손실 범위를 알 수 없음: {why}",
    },
    "services_stop": {"en": "stops and starts: {names}", "ko": "중지 후 시작: {names}"},
    "expected": {
        "en": "the restore is expected to take {seconds} ({basis})",
        "ko": "복원 예상 시간 {seconds} ({basis})",
    },
    "measured": {"en": "as restores here took", "ko": "이곳에서 측정한 복원 기준"},
    "assumed": {
        "en": "a guess: no restore was measured here",
        "ko": "추정: 이곳에서 측정된 복원이 없음",
    },
    "q_not_possible": {
        "en": "The restore cannot begin like this. Look again, choose another snapshot (older), "
        "or stop?",
        "ko": "이대로는 복원을 시작할 수 없습니다. 다시 확인할까요, 이전 스냅샷을 고를까요, "
        "중단할까요?",
    },
    "will_save": {
        "en": "the restore saves what is there before it replaces anything, and can be undone",
        "ko": "복원은 교체 전에 현재 상태를 저장하며 되돌릴 수 있습니다",
    },
    # ----------------------------------------------------------------- 4
    "q_restore": {
        "en": "Replace the live data with snapshot {id} of {time} now?",
        "ko": "지금 운영 데이터를 스냅샷 {id} ({time})(으)로 교체할까요?",
    },
    "q_target": {"en": "Restore into which new folder?", "ko": "어느 새 폴더에 복원할까요?"},
    "restored": {
        "en": "snapshot {id} is the live data now (restore {restore}, {seconds})",
        "ko": "이제 스냅샷 {id}이(가) 운영 데이터입니다 (복원 {restore}, {seconds})",
    },
    "restored_beside": {
        "en": "snapshot {id} is in {target}, every byte compared with its hash",
        "ko": "스냅샷 {id}을(를) {target}에 복원했고 모든 바이트를 해시와 비교했습니다",
    },
    "beside_next": {
        "en": "where the stores belong and how they start stands in number 5 of the page "
        "`Recovery kit`; this configuration does not know it",
        "ko": "저장소를 둘 위치와 시작 방법은 복구 키트(`Recovery kit`) 5번에 있으며, "
        "이 설정에는 없습니다",
    },
    "saved_as": {
        "en": "what was there before is snapshot {ids}: `safetake restore --undo {restore}`",
        "ko": "이전 상태는 스냅샷 {ids}: `safetake restore --undo {restore}`",
    },
    "nothing_saved": {
        "en": "there was nothing to save before it",
        "ko": "이전에 저장할 데이터가 없었습니다",
    },
    "restore_failed": {
        "en": "the restore did not succeed; what was there before is the live data",
        "ko": "복원이 실패했고 이전 데이터가 그대로 유지됩니다",
    },
    "restore_left_open": {
        "en": "the restore was cut off and is still open: the live data is neither known to be "
        "what was there before nor the snapshot, until it is resumed or rolled back",
        "ko": "복원이 중단된 채 열려 있습니다: 재개하거나 롤백할 때까지 운영 데이터가 "
        "이전 상태인지 스냅샷인지 알 수 없습니다",
    },
    "q_restore_failed": {
        "en": "Try again, choose another snapshot (older), or stop?",
        "ko": "다시 시도할까요, 이전 스냅샷을 고를까요, 중단할까요?",
    },
    "open_restore": {
        "en": "the restore {restore} of snapshot {id} was interrupted",
        "ko": "스냅샷 {id}의 복원 {restore}이(가) 중단되어 있습니다",
    },
    "q_open_restore": {
        "en": "Resume it, roll it back to the data from before, or stop?",
        "ko": "재개할까요, 이전 데이터로 롤백할까요, 중단할까요?",
    },
    "still_running": {
        "en": "a restore is still at work; waiting for it to end",
        "ko": "복원이 아직 실행 중입니다; 끝날 때까지 기다립니다",
    },
    "ended_meanwhile": {
        "en": "the restore went on and ended by itself meanwhile",
        "ko": "그동안 복원이 스스로 끝났습니다",
    },
    # ----------------------------------------------------------------- 5
    "integrity_ok": {
        "en": "{asked} questions, nothing wrong; {unasked} could not be asked",
        "ko": "질문 {asked}개, 이상 없음; 확인하지 못한 질문 {unasked}개",
    },
    "unasked": {"en": "not asked: {text}", "ko": "확인하지 못함: {text}"},
    "integrity_bad": {"en": "{count} answers are wrong", "ko": "이상 {count}건"},
    "integrity_bare": {
        "en": "no live store is configured to ask; the copy was proven while it was written",
        "ko": "검사할 운영 저장소 설정이 없습니다; 복사본은 쓰는 동안 검증되었습니다",
    },
    "q_integrity": {
        "en": "Go on anyway, undo the restore and choose another snapshot, look again, or stop?",
        "ko": "그래도 계속할까요, 복원을 되돌리고 다른 스냅샷을 고를까요, 다시 검사할까요, "
        "중단할까요?",
    },
    # ----------------------------------------------------------------- 6
    "service": {"en": "{name}: {state}, {health}", "ko": "{name}: {state}, {health}"},
    "running": {"en": "running", "ko": "실행 중"},
    "not_running": {"en": "stopped", "ko": "중지됨"},
    "well": {"en": "well", "ko": "정상"},
    "not_well": {"en": "NOT WELL: {text}", "ko": "비정상: {text}"},
    "not_asked": {"en": "health not configured", "ko": "상태 확인 설정 없음"},
    "q_services": {
        "en": "Mend it and look again, go on anyway, or stop?",
        "ko": "고친 뒤 다시 확인할까요, 그래도 계속할까요, 중단할까요?",
    },
    "no_services": {
        "en": "no service is configured ([services.NAME]): start them by hand on the data",
        "ko": "설정된 서비스가 없습니다([services.NAME]): 직접 시작하세요",
    },
    "q_started": {
        "en": "Do the services run on the restored data?",
        "ko": "서비스가 복원된 데이터로 실행 중입니까?",
    },
    # ----------------------------------------------------------------- 7
    "try_application": {
        "en": "Use the application as its users do: open, search, write something, read it back.",
        "ko": "사용자처럼 애플리케이션을 써 보세요: 열기, 검색, 쓰기, 다시 읽기.",
    },
    "gates_well": {
        "en": "the health of all services that have one is well",
        "ko": "상태 확인이 설정된 모든 서비스가 정상입니다",
    },
    "q_tested": {"en": "Does the application work?", "ko": "애플리케이션이 동작합니까?"},
    "q_application_bad": {
        "en": "Go on anyway, undo the restore and choose another snapshot, or stop?",
        "ko": "그래도 계속할까요, 복원을 되돌리고 다른 스냅샷을 고를까요, 중단할까요?",
    },
    "nobody_tested": {
        "en": "nobody said that the application works",
        "ko": "애플리케이션 동작을 확인한 사람이 없습니다",
    },
    # ----------------------------------------------------------------- 8
    "status_good": {
        "en": "status: no objective is broken",
        "ko": "상태: 위반된 목표가 없습니다",
    },
    "status_broken": {"en": "broken: {text}", "ko": "목표 위반: {text}"},
    "status_warning": {"en": "warning: {text}", "ko": "경고: {text}"},
    "failed_runs": {
        "en": "{count} runs of safetake failed in the last 24 h; the newest: {what}",
        "ko": "지난 24시간 동안 safetake 실행 {count}건 실패; 최신: {what}",
    },
    "no_failed_runs": {
        "en": "no run of safetake is known to have failed in the last 24 h",
        "ko": "지난 24시간 동안 실패한 safetake 실행 기록이 없습니다",
    },
    "q_monitored": {
        "en": "Were dashboards, alerts and the application's logs looked at, and are they quiet?",
        "ko": "대시보드, 알림, 애플리케이션 로그를 확인했고 이상이 없습니까?",
    },
    "nobody_looked": {
        "en": "nobody said that monitoring and logs are quiet",
        "ko": "모니터링과 로그를 확인한 사람이 없습니다",
    },
    # ----------------------------------------------------------------- 9
    "message_title": {
        "en": "safetake: data restored on {host}",
        "ko": "safetake: {host} 데이터 복원",
    },
    "message_body": {
        "en": "The data of {sources} is that of {time} (snapshot {id}). "
        "What was written later is not in it.\nIncident: {began}. {recovered}",
        "ko": "{sources}의 데이터는 {time} 시점입니다(스냅샷 {id}). "
        "그 이후에 기록된 내용은 포함되지 않습니다.\n장애 시작: {began}. {recovered}",
    },
    "message_recovered": {"en": "Recovered in: {took}.", "ko": "복구 소요: {took}."},
    "message_data_only": {
        "en": "The data was back after {took}; nobody said that the application works.",
        "ko": "데이터는 {took} 만에 복원되었습니다. 애플리케이션 동작은 확인되지 않았습니다.",
    },
    "message_open": {"en": "Not good yet: {names}", "ko": "아직 해결되지 않음: {names}"},
    "q_note": {
        "en": "Anything to add to the message (-: nothing)?",
        "ko": "메시지에 덧붙일 말이 있습니까 (-: 없음)?",
    },
    "q_send": {"en": "Tell {ways} now?", "ko": "지금 {ways}(으)로 알릴까요?"},
    "told": {"en": "told by: {ways}", "ko": "통보 완료: {ways}"},
    "not_told": {"en": "not told: {text}", "ko": "통보 실패: {text}"},
    "nobody_configured": {
        "en": "nobody is configured in [notify]: safetake tells nobody",
        "ko": "[notify]에 설정된 대상이 없습니다: safetake는 아무에게도 알리지 않습니다",
    },
    "q_told": {
        "en": "Were the stakeholders told by hand?",
        "ko": "관계자에게 직접 알렸습니까?",
    },
    "nobody_told": {
        "en": "nobody said that the stakeholders know",
        "ko": "관계자에게 알렸는지 확인되지 않았습니다",
    },
    # ----------------------------------------------------------------- 10
    "q_meeting": {
        "en": "The review meeting begins (YYYY-MM-DD HH:MM, local time)?",
        "ko": "사후 검토 회의 시작 (YYYY-MM-DD HH:MM, 현지 시각)?",
    },
    "q_people": {
        "en": "Who comes (mail addresses; -: nobody named)?",
        "ko": "참석자 (메일 주소; -: 없음)?",
    },
    "no_moment": {
        "en": "{text} is no moment to come: write it like 2026-11-24 10:00",
        "ko": "{text}은(는) 앞으로의 시각이 아닙니다: 2026-11-24 10:00처럼 쓰세요",
    },
    "no_addresses": {
        "en": "{text} holds no mail address",
        "ko": "{text}에 메일 주소가 없습니다",
    },
    "meeting_summary": {
        "en": "Review of the incident on {host}",
        "ko": "{host} 장애 사후 검토",
    },
    "meeting_body": {
        "en": "Runbook {id}.\nBring the incident report.\nWhat happened, why, what keeps it from "
        "happening again?",
        "ko": "런북 {id}.\n장애 보고서를 준비하세요.\n무슨 일이 있었고, 왜 일어났으며, "
        "어떻게 재발을 막을 것인가?",
    },
    "meeting_set": {
        "en": "review meeting {time}; open this with a calendar: {file}",
        "ko": "검토 회의 {time}; 달력으로 여세요: {file}",
    },
    # ----------------------------------------------------------------- the end
    "report_in": {"en": "report: {file}", "ko": "보고서: {file}"},
    "evidence_is": {"en": "evidence {id}: {verdict}", "ko": "증거 {id}: {verdict}"},
    "not_kept": {
        "en": "the evidence is only in the report, not in the repository: {why}",
        "ko": "증거가 저장소가 아닌 보고서에만 있습니다: {why}",
    },
    "in_time": {
        "en": "recovered in {took}, within the RTO of {rto}",
        "ko": "{took} 만에 복구, RTO {rto} 이내",
    },
    "data_only": {
        "en": "the data is back since {took}, in {target}; nobody said that the application "
        "works on it, so the RTO of {rto} runs on",
        "ko": "데이터는 {took} 만에 {target}에 복원되었습니다. 애플리케이션 동작이 확인되지 "
        "않아 RTO {rto}은(는) 계속 진행 중입니다",
    },
    "too_late": {
        "en": "recovered in {took}, the RTO was {rto}",
        "ko": "{took} 만에 복구, RTO는 {rto}였습니다",
    },
    "too_old": {
        "en": "the data is {age} older than the incident, the RPO is {rpo}",
        "ko": "데이터가 장애보다 {age} 오래되었고 RPO는 {rpo}입니다",
    },
    "abandoned": {
        "en": "abandoned at step {step}, {name}",
        "ko": "{step}단계({name})에서 포기",
    },
    "abandoned_open": {
        "en": "a restore in place is still open: `safetake restore --resume` or `--rollback`",
        "ko": "끝나지 않은 복원이 있습니다: `safetake restore --resume` 또는 `--rollback`",
    },
    "decision": {
        "en": "decision, step {step}, {time}: {question} {value} ({by})",
        "ko": "결정, {step}단계, {time}: {question} {value} ({by})",
    },
    "by_default": {"en": "the default", "ko": "기본값"},
    "note_resumed": {
        "en": "times that the runbook was interrupted and resumed: {count}",
        "ko": "런북이 {count}번 중단되었다가 재개되었습니다",
    },
}


class Words:
    """The texts in one language."""

    def __init__(self, language: str) -> None:
        self.language = language

    def __call__(self, key: str, **gaps: Any) -> str:
        """One text, its gaps filled."""
        return TABLE[key][self.language].format(**gaps)


def default_language(environment: Mapping[str, str] = os.environ) -> str:
    """What LC_ALL, LC_MESSAGES or LANG says, the first that says anything; English else."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if environment.get(name):
            return "ko" if environment[name].lower().startswith("ko") else "en"
    return "en"
