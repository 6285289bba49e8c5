"""Outcomes, told to an Event Grid topic as CloudEvents. The only place that publishes."""

from __future__ import annotations

from azure.core.messaging import CloudEvent
from azure.eventgrid.aio import EventGridPublisherClient

from shared.calls import translated
from shared.outcomes import Notice

SOURCE = "aks-kms-enforcer"


class Notices:
    """A topic. Errors are those of `shared.errors`; nothing is sent twice by us, and a receiver knows it by its id."""

    def __init__(self, topic: EventGridPublisherClient) -> None:
        self._topic = topic

    async def publish(self, notice: Notice) -> None:
        """Tell of one outcome."""
        event = CloudEvent(
            source=SOURCE, type=notice.kind, subject=notice.subject, id=notice.id, data=dict(notice.said)
        )
        with translated(writing=True):
            await self._topic.send(event)
