"""A user with a browser: logs in to Airflow, opens tasks, looks at pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

from playwright.sync_api import Browser, Dialog, FrameLocator, Locator, Page, Request, Route, expect, sync_playwright

from dev import chromium
from dev.local_airflow import LocalAirflow

PATIENCE = 60_000.0
"""Milliseconds for what a page shows to appear: Airflow's UI may need seconds on a busy machine."""


class Visitor:
    """Notes what a page must not do: open dialogs, ask other hosts."""

    def __init__(self, airflow: LocalAirflow, **context: Any) -> None:
        self.dialogs: list[str] = []
        self.hosts: set[str | None] = set()
        self._airflow = airflow
        self._context = context

    def __enter__(self) -> Self:
        self._playwright = sync_playwright().start()
        self._browser: Browser = self._playwright.chromium.launch(
            executable_path=chromium.program(), args=list(chromium.QUIET)
        )
        context = self._browser.new_context(viewport={"width": 1440, "height": 1000}, **self._context)
        context.set_default_timeout(PATIENCE)
        context.on("request", self._note)
        self.page: Page = context.new_page()
        self.page.on("dialog", self._refuse)
        expect.set_options(timeout=PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._browser.close()
        self._playwright.stop()

    def log_in(self) -> None:
        """Log in, as a user does."""
        self.page.goto(f"{self._airflow.url}/")
        self.page.get_by_label("Username").fill(self._airflow.username)
        self.page.get_by_label("Password", exact=True).fill(self._airflow.password)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(f"{self._airflow.url}/")

    def open_images(self, path: str) -> FrameLocator:
        """Open a page of the UI and go to its tab *Images*; return what is in it."""
        self.page.goto(f"{self._airflow.url}{path}")
        self.page.get_by_role("link", name="Images", exact=True).click()
        return self.gallery

    def follow_link(self, path: str, name: str) -> Page:
        """Click an extra link of a task instance; return the page that it opens, in this tab or in another one."""
        self.page.goto(f"{self._airflow.url}{path}/details")
        link = self.page.get_by_role("link", name=name)
        if link.get_attribute("target") == "_blank":  # Airflow 3.1
            with self.page.expect_popup() as opening:
                link.click()
            return opening.value
        link.click()
        self.page.wait_for_url("**/odirouter/**")
        return self.page

    @property
    def gallery(self) -> FrameLocator:
        """What the tab shows."""
        return self.page.frame_locator('iframe[title="Images"]')

    def use_theme(self, theme: str) -> None:
        """Change the UI's theme, which it remembers, to "light" or "dark"."""
        self.page.evaluate("theme => localStorage.setItem('theme', theme)", theme)
        self.page.reload()

    @contextmanager
    def held(self, pattern: str) -> Iterator[Callable[[], None]]:
        """Hold what the page asks for at addresses of a pattern, until the yielded function is called."""
        held: list[Route] = []
        is_open = False

        def hold(route: Route) -> None:
            if is_open:
                route.continue_()
            else:
                held.append(route)

        def release() -> None:
            nonlocal is_open
            is_open = True
            for route in held:
                route.continue_()

        self.page.route(pattern, hold)
        yield release
        self.page.unroute(pattern)

    def _note(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in {"about", "blob", "data"}:
            self.hosts.add(url.hostname)

    def _refuse(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()


def path_of(dag_id: str, run_id: str, task_id: str = "edit", map_index: int | None = None) -> str:
    """The UI's path of a task instance."""
    mapped = "" if map_index is None else f"/mapped/{map_index}"
    return f"/dags/{dag_id}/runs/{quote(run_id, safe='')}/tasks/{task_id}{mapped}"


def width_of(picture: Locator) -> int:
    """How many pixels of a picture the browser has decoded across, as soon as it has; 0 if it cannot."""
    width = picture.evaluate("image => image.decode().then(() => image.naturalWidth, () => 0)")
    return int(width)
