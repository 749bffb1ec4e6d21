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


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command.

    :return: Its exit status: 1, if OdiRouter does not answer, or refuses.
    """
    options = _parser().parse_args(arguments)
    find_connections_in_database()
    hook = OdiRouterHook(options.conn_id)
    try:
        if options.action == "cancel":
            answer = CANCEL_MEANINGS[hook.cancel(options.endpoint, options.request_id)].sentence
        else:
            answer = f"It is {hook.get_status(options.endpoint, options.request_id).raw_status}"
    except OdiRouterError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"Request {options.request_id}: {answer}.\n")
    return 0


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
