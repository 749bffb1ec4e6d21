"""Operators to which something happens at the worst moment, in their first try."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, Never

from airflow.sdk import get_current_context
from airflow.triggers.base import BaseTrigger

from airflow_provider_odirouter.operators.image_edit import OdiRouterImageEditOperator
from tests.e2e.edit_dag import edit_dag
from tests.e2e.triggers import CrashingTrigger

LONG_ENOUGH_TO_BE_KILLED = 300.0


class Lingering(OdiRouterImageEditOperator):
    """Has submitted, and does not come to its deferral."""

    def defer(self, *, trigger: BaseTrigger, **deferral: Any) -> Never:
        if _is_first_try():
            time.sleep(LONG_ENOUGH_TO_BE_KILLED)
        super().defer(trigger=trigger, **deferral)


class TriggerCrashes(OdiRouterImageEditOperator):
    """The trigger of its first try crashes."""

    def defer(self, *, trigger: BaseTrigger, **deferral: Any) -> Never:
        if _is_first_try():
            trigger = CrashingTrigger(**trigger.serialize()[1])
        super().defer(trigger=trigger, **deferral)


class TriggerIsLate(OdiRouterImageEditOperator):
    """Airflow ends its deferral long before its trigger would."""

    def defer(self, *, trigger: BaseTrigger, **deferral: Any) -> Never:
        super().defer(trigger=trigger, **deferral | {"timeout": timedelta(seconds=5)})


class ShortFirstTry(OdiRouterImageEditOperator):
    """Its first try waits for a minute, a retry for long."""

    def execute(self, context: Any) -> Any:
        self.timeout = 60.0 if _is_first_try() else 3600.0
        return super().execute(context)


def _is_first_try() -> bool:
    return bool(get_current_context()["ti"].try_number == 1)


lingering = edit_dag("lingering", Lingering, retries=1)
refuses_lost_submits = edit_dag("refuses_lost_submits", retries=1, on_lost_submit="fail")
eight_pictures = edit_dag("eight_pictures", retries=1, n=8)
trigger_crashes = edit_dag("trigger_crashes", TriggerCrashes)
trigger_crashes_with_retry = edit_dag("trigger_crashes_with_retry", TriggerCrashes, retries=1)
trigger_is_late = edit_dag("trigger_is_late", TriggerIsLate)
short_first_try = edit_dag("short_first_try", ShortFirstTry, retries=1, deferrable=False)
