"""
The command ``odirouter-request``: ask OdiRouter about one request, or cancel it, by hand.

::

    odirouter-request status gpt_image_1_edit mmsu_0123456789
    odirouter-request cancel gpt_image_1_edit mmsu_0123456789 --conn-id shop

Our log lines name it where a request may be left running. It finds the connection where ``airflow connections`` does:
in the environment, in a secrets backend, or in Airflow's database.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from airflow_provider_odirouter.compat import find_connections_in_database
from airflow_provider_odirouter.errors import OdiRouterError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle.polling import CANCEL_MEANINGS
from airflow_provider_odirouter.models import CancelOutcome

ENDED = frozenset({CancelOutcome.REQUESTED, CancelOutcome.ALREADY_COMPLETED})
"""The outcomes of a cancel after which the request certainly does not run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command.

    :return: Its exit status: 1, if OdiRouter does not answer, or if the request may run on after a cancel.
    """
    options = _parser().parse_args(arguments)
    find_connections_in_database()
    hook = OdiRouterHook(options.conn_id)
    try:
        if options.action == "status":
            status = hook.get_status(options.endpoint, options.request_id)
            sys.stdout.write(f"Request {options.request_id}: It is {status.raw_status}.\n")
            return 0
        outcome = hook.cancel(options.endpoint, options.request_id)
    except OdiRouterError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    # Another connection may be of another account, which does not know the request.
    asked = f"With the connection {options.conn_id!r}, request {options.request_id}"
    sys.stdout.write(f"{asked}: {CANCEL_MEANINGS[outcome].sentence}.\n")
    return 0 if outcome in ENDED else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="odirouter-request", description="Ask OdiRouter about one request, or cancel it, by hand."
    )
    parser.add_argument("action", choices=("status", "cancel"))
    parser.add_argument("endpoint", metavar="ENDPOINT", help="of the request, such as gpt_image_1_edit")
    parser.add_argument("request_id", metavar="REQUEST_ID", help="as the task's log or its XCom request_id has it")
    parser.add_argument(
        "--conn-id",
        default="odirouter_default",
        metavar="ID",
        help="the Airflow connection of the task (odirouter_default)",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
