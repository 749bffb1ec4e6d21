"use strict";

const REFRESH_SECONDS = 5;

/** The document of the UI around this page; null if there is none, or if it is of another origin. */
function outerDocument() {
  try {
    return window.parent !== window ? window.parent.document : null;
  } catch {
    return null;
  }
}

function followTheme(outer) {
  const root = outer.documentElement;
  const follow = () => {
    const isDark = root.classList.contains("dark");
    document.documentElement.classList.toggle("dark", isDark);
    document.documentElement.classList.toggle("light", !isDark);
  };
  follow();
  new MutationObserver(follow).observe(root, { attributes: true, attributeFilter: ["class"] });
}

/** Airflow's frame forbids a page to open a window, and before 3.3 to start a download; the page around it may do both. */
function followLink(outer, event) {
  const link = event.target.closest("a[target], a[download]");
  if (!link) return;
  event.preventDefault();
  const copy = outer.createElement("a");
  copy.href = link.href;
  copy.target = link.target;
  copy.rel = link.rel;
  if (link.hasAttribute("download")) copy.download = "";
  outer.body.append(copy);
  copy.click();
  copy.remove();
}

function showMissing(event) {
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
      if (!answer.ok) throw new Error(`Airflow answered ${answer.status}`);
      const next = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("page");
      if (next.innerHTML !== shown) {
        const focused = document.activeElement?.id;
        shown = next.innerHTML;
        page.replaceWith(next);
        if (focused) document.getElementById(focused)?.focus();
        status.textContent = "The page has been refreshed.";
      }
    } catch (error) {
      status.textContent = `The page could not be refreshed (${error.message}); it will try again.`;
    }
  }
  setTimeout(refresh, REFRESH_SECONDS * 1000);
}

let shown = "";
const outer = outerDocument();
if (outer) {
  followTheme(outer);
  document.addEventListener("click", (event) => followLink(outer, event));
}
// An image's error does not bubble.
document.addEventListener("error", showMissing, true);
document.addEventListener("DOMContentLoaded", () => {
  shown = document.getElementById("page").innerHTML;
  setTimeout(refresh, REFRESH_SECONDS * 1000);
});
