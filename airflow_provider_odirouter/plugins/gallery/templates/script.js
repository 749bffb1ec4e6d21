"use strict";

const REFRESH_SECONDS = 5;

/** The UI around this page, where there is one that may be looked at. */
function surroundings() {
  try {
    return window.parent !== window ? window.parent.document : null;
  } catch {
    return null;
  }
}

function followTheme(outside) {
  const theirs = outside.documentElement;
  const follow = () => {
    const isDark = theirs.classList.contains("dark");
    document.documentElement.classList.toggle("dark", isDark);
    document.documentElement.classList.toggle("light", !isDark);
  };
  follow();
  new MutationObserver(follow).observe(theirs, { attributes: true, attributeFilter: ["class"] });
}

/** Airflow's frame lets no page open a window, and before 3.3 none start a download: the page around it may. */
function followLink(outside, event) {
  const link = event.target.closest("a[target], a[download]");
  if (!link) return;
  event.preventDefault();
  const twin = outside.createElement("a");
  twin.href = link.href;
  twin.target = link.target;
  twin.rel = link.rel;
  if (link.hasAttribute("download")) twin.download = "";
  outside.body.append(twin);
  twin.click();
  twin.remove();
}

function sayMissing(event) {
  const text = event.target.dataset?.missing;
  if (!text) return;
  const frame = event.target.closest(".frame");
  const words = document.createElement("span");
  words.className = "missing";
  words.textContent = `${event.target.alt} — ${text}`;
  frame.replaceChildren(words);
}

async function refresh() {
  const page = document.getElementById("page");
  const status = document.getElementById("refreshed");
  if (!page || !("refresh" in page.dataset)) return;
  if (!document.hidden) {
    try {
      const answer = await fetch(location.href, { credentials: "same-origin" });
      if (!answer.ok) throw new Error(`Airflow answers ${answer.status}`);
      const next = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("page");
      if (next.innerHTML !== shown) {
        const focused = document.activeElement?.id;
        shown = next.innerHTML;
        page.replaceWith(next);
        if (focused) document.getElementById(focused)?.focus();
        status.textContent = "The page has been refreshed.";
      }
    } catch (error) {
      status.textContent = `The page could not be refreshed (${error.message}); it tries again.`;
    }
  }
  setTimeout(refresh, REFRESH_SECONDS * 1000);
}

let shown = "";
const outside = surroundings();
if (outside) {
  followTheme(outside);
  document.addEventListener("click", (event) => followLink(outside, event));
}
// An image's error does not bubble.
document.addEventListener("error", sayMissing, true);
document.addEventListener("DOMContentLoaded", () => {
  shown = document.getElementById("page").innerHTML;
  setTimeout(refresh, REFRESH_SECONDS * 1000);
});
