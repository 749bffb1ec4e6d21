"""
How Sphinx builds the documentation: ``make docs``.

Sphinx, and not MkDocs with Material: Airflow's own documentation is made with it; the docstrings are reST with
``:param name:``, as in Airflow; one build resolves the links between pages, docstrings and classes, and ``-W -n`` makes
each that does not resolve an error; and its search needs no server. Material for MkDocs has been in maintenance mode
since November 2025. The pages are Markdown (MyST), so that GitHub shows them, too.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from airflow_provider_odirouter import __version__

# Airflow reads its configuration when autodoc imports the provider: not the one of whoever builds the pages.
home = tempfile.TemporaryDirectory(prefix="odirouter-docs-")  # removed at the end of the build
os.environ["AIRFLOW_HOME"] = home.name
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "WARNING"
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "airflow-provider-odirouter"
author = "The airflow-provider-odirouter authors"
copyright = f"{author}, Apache-2.0"  # Sphinx's name
release = version = __version__
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_llm.txt",
    "provider_tables",
]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}

# --- Pages

myst_enable_extensions = ["colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
copybutton_line_continuation_character = "\\"

# --- The reference, from docstrings

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False
nitpicky = True
nitpick_ignore_regex = [
    # Classes of others, and what only an IDE shows. Their documentation is elsewhere, and a build loads nothing.
    ("py:.*", r"(airflow|asyncio|collections|datetime|pathlib|pydantic|pytest|types|typing)(\..*)?"),
    ("py:class", r"timedelta|datetime|BaseNotifier|TaskDecorator|XComArg|optional|T"),
    # Names of ours for unions of types, and bases that a user never names.
    ("py:class", r"PathLike|ImageSource|Items|Edits|Source|.*\.ApiModel|.*\.ConnectionSettings|Action"),
    ("py:class", r"airflow_provider_odirouter\.sandbox\..*"),
]

# --- HTML

html_theme = "furo"
html_title = f"airflow-provider-odirouter {release}"
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"top_of_page_buttons": []}
llms_txt_description = (
    "An Apache Airflow provider for OdiRouter's paid, asynchronous image editing queue: operators, a sensor, "
    "decorators, batches, a review by a person, and a local OdiRouter for tests."
)
llms_txt_full_build = True
llms_txt_suffix_mode = "replace"
llms_txt_nested_enabled = False
llms_txt_suppress_unknown_node_warnings = ["abbreviation"]  # the star before parameters that need their names
