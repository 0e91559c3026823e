"""A lakeward sink that posts rows as JSON to an HTTP endpoint."""

from lakeward import Component, hookimpl

LAKEWARD_API = (1, 0)


@hookimpl
def lakeward_components() -> list[Component]:
    """Announce the sink `webhook`."""
    return [Component("sink", "webhook", "lakeward_webhook.sink:WebhookSink", "Rows as JSON to an HTTP endpoint, under idempotency keys.")]
