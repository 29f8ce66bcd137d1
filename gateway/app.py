"""How the parts are put together: the applications on the two ports of a gateway process."""

from __future__ import annotations

import orjson

from gateway import asyncapi, event_pages, openapi, pages
from gateway.application import Application, Endpoints
from gateway.binding import Binding, Codecs
from gateway.cors import Cors
from gateway.descriptors import Contract
from gateway.identity import Identities
from gateway.limits import Buckets, Places
from gateway.logs import access_log
from gateway.metrics import Metrics
from gateway.moved_time import PATH as ADVANCE
from gateway.moved_time import MovedTime
from gateway.operations import Guards, Operation
from gateway.settings import GatewaySettings
from gateway.sign_in import SignIn
from gateway.upstream import Upstream
from gateway.web import JSON, ClientAddress, Request, Response
from services.chassis.settings import Settings

REACHABLE_WITHIN = 1.0  # seconds for residents to be connected, when asked whether the gateway is ready


class Gateway:
    """`outside` is what the world sees; `inside` (STEWARD_HTTP_PORT) what the supervisor and Prometheus do."""

    def __init__(self, settings: Settings, own: GatewaySettings, contract: Contract, upstream: Upstream) -> None:
        """Raises ValueError on a contract that cannot be served, naming the RPC."""
        self.draining = False
        self._upstream = upstream
        self.metrics = metrics = Metrics()
        identities = Identities(contract, upstream, settings.internal_token, own.exchange_timeout, metrics.identity)
        guards = Guards(
            own,
            identities,
            settings.internal_token,
            principals=Buckets(own.principal_rate, own.principal_burst, lambda: metrics.refused("principal_rate")),
            addresses=Buckets(own.address_rate, own.address_burst, lambda: metrics.refused("address_rate")),
            sign_ins=Buckets(own.sign_in_rate, own.sign_in_burst, lambda: metrics.refused("sign_in_rate")),
            places=Places(own.in_flight, lambda: metrics.refused("in_flight")),
            large_uploads=Places(own.large_uploads, lambda: metrics.refused("large_uploads")),
        )
        codecs = Codecs(contract)
        bindings = [Binding(contract, codecs, rpc, rule, own.body_limit) for rpc in contract.rpcs if rpc.routed for rule in rpc.rules]
        sign_in = SignIn(contract, upstream, identities, guards.sign_ins, settings.internal_token, own.deadline)

        clients = ClientAddress(own.trusted_proxies)
        self.outside = Application(Cors(own.cors_origins, settings.development), clients, metrics, access_log(settings.log_format))
        for binding in bindings:
            self.outside.router.add(binding.method, binding.template, Operation(binding, upstream, guards))
        self.outside.add(self._for_people(contract, bindings))
        self.outside.add({("POST", "/v1/auth/token"): sign_in.token, ("POST", "/v1/auth/revoke"): sign_in.revoke})
        self.outside.add({("GET", "/healthz"): self._alive, ("GET", "/readyz"): self._ready})
        if settings.development:
            walk = MovedTime(contract, upstream, sorted(settings.addresses), settings.internal_token)
            self.outside.add({("POST", ADVANCE): walk.advance})
        if own.metrics_outside or settings.development:
            self.outside.add({("GET", "/metrics"): self._metrics_page})

        self.inside = Application(Cors((), False), clients, None, None)
        self.inside.add({("GET", "/healthz"): self._alive, ("GET", "/readyz"): self._ready, ("GET", "/metrics"): self._metrics_page})

    def _for_people(self, contract: Contract, bindings: list[Binding]) -> Endpoints:
        reacting = asyncapi.consumers()
        table: Endpoints = {("GET", path): page for path, page in pages.documentation().items()}
        table["GET", "/openapi.json"] = pages.json_page(lambda: openapi.document(contract, bindings))
        table["GET", "/asyncapi.json"] = pages.json_page(lambda: asyncapi.document(contract, reacting))
        table["GET", "/docs/events"] = pages.Page(lambda: event_pages.page(asyncapi.document(contract, reacting)), pages.HTML)
        table["GET", "/favicon.ico"] = self._no_icon
        return table

    async def _no_icon(self, request: Request) -> Response:
        return Response(204)

    async def _alive(self, request: Request) -> Response:
        return Response(200, b'{"status":"alive"}', JSON)

    async def _ready(self, request: Request) -> Response:
        """Ready is: signing in and checking who calls is possible. Other services' absence costs their operations only."""
        why = ""
        if self.draining:
            why = "draining"
        elif not await self._upstream.reachable("residents", REACHABLE_WITHIN):
            why = "residents is not reachable"
        body = {"status": "not ready", "why": why} if why else {"status": "ready"}
        return Response(503 if why else 200, orjson.dumps(body), JSON, [(b"cache-control", b"no-store")])

    async def _metrics_page(self, request: Request) -> Response:
        content_type, body = self.metrics.page()
        return Response(200, body, content_type)
