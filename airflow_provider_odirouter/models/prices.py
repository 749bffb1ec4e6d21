"""The prices that the user has set in the connection: the service does not tell its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from airflow_provider_odirouter.models.spending import DIGITS, Spending

DEFAULT_QUALITY = "auto"
"""Of a request that names no quality, as the service has it."""
MAX_PRICE = 1_000_000
FORM = 'must be a JSON object such as {"gpt_image_1_edit": {"low": 0.02, "high": 0.19}, "nano_banana_2": 0.04}'


@dataclass(frozen=True)
class Prices:
    """
    Prices of one output, by endpoint: a number, or numbers by quality.

    :param by_endpoint: As in the connection.
    """

    by_endpoint: Mapping[str, float | Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def parse(cls, value: object) -> Self:
        """
        Read prices, also as the text of a form.

        :raises ValueError: If they cannot be used; the text is the rest of a sentence that begins with their name.
        """
        if value is None or value == "":
            return cls()
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                raise ValueError(f"{FORM}, and this is not JSON: {value!r:.60}") from None
        if not isinstance(value, Mapping):
            raise ValueError(f"{FORM}, not {value!r:.60}")  # noqa: TRY004 - an unusable value, like the others
        return cls({endpoint: _prices_of(endpoint, prices) for endpoint, prices in value.items()})

    def spending(self, endpoint: str, parameters: Mapping[str, Any]) -> Spending:
        """Return one submit with its price: that of ``n`` outputs, or of one if the parameters have no ``n``."""
        prices = self.by_endpoint.get(endpoint)
        price = prices.get(quality_of(parameters)) if isinstance(prices, Mapping) else prices
        outputs = parameters.get("n")
        count = outputs if isinstance(outputs, int) and not isinstance(outputs, bool) else 1
        return Spending(1, None if price is None else round(price * count, DIGITS))


def quality_of(parameters: Mapping[str, Any]) -> str:
    """Return the quality of a request, as prices name it."""
    return str(parameters.get("quality") or DEFAULT_QUALITY)


def _prices_of(endpoint: str, prices: object) -> float | dict[str, float]:
    if isinstance(prices, Mapping):
        if not prices:
            raise ValueError(f"must have a number for {endpoint}, or numbers by quality, not {prices!r}")
        return {quality: _price(f"{endpoint}, {quality}", price) for quality, price in prices.items()}
    return _price(endpoint, prices)


def _price(of: str, price: object) -> float:
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price <= MAX_PRICE:
        raise ValueError(f"must have a number from 0 to {MAX_PRICE:,} for {of}, not {price!r:.60}")
    return float(price)
