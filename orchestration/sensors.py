"""The daemon's part of the alerts: it looks at what happened, and it sends. Two sensors, so that a slow channel holds up no look."""

import dagster as dg

from orchestration.alerting import Alerting
from quant.errors import SequenceError
from quant.ports import DeliveryOutcome

INTERVAL_SECONDS = 10
"""Of each sensor: a finding is told within twice that and the time a channel takes."""


def alert_sensors(alerting: Alerting) -> list[dg.SensorDefinition]:
    """Both sensors, running from the start of the daemon.

    Dagster's run status sensors see the runs of their code location only; runs of the command line have no origin and would be missed.
    """

    @dg.sensor(
        name="alerts_observed",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks at ended runs and their checks, at stale tables and at sessions that did not run, and writes alerts.",
    )
    def observed(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        why_none = alerting.look(context.instance)
        return dg.SkipReason(f"runs looked at; no session is late: {why_none}" if why_none else "runs, tables and sessions looked at")

    @dg.sensor(
        name="alerts_sent",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends alerts to every channel, and what one does not take to the next.",
    )
    def sent(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        try:
            attempts = alerting.drain()
        except SequenceError as error:
            return dg.SkipReason(str(error))
        for attempt in attempts:
            if attempt.outcome is not DeliveryOutcome.SENT:
                context.log.warning(f"{attempt.channel}: {attempt.detail}")
        told = ", ".join(f"{a.notice.id} to {a.channel}: {a.outcome.value}" for a in attempts)
        return dg.SkipReason(told or "nothing to send")

    return [observed, sent]
