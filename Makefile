# make demo   sets up everything, runs an example Dag in a real Airflow against the sandbox, and shows the pictures;
#             WHAT=photo (default), batch, chain or review; KEEP=1 leaves Airflow's UI open; dev/demo says what else
# make test   sets up everything and runs the tests; AIRFLOW=3.1.8 or 3.2.2 runs those that need Airflow on an older
#             one, AIRFLOW=lowest on the lowest versions of all that we promise; COVERAGE=1 measures the branches
# make e2e    runs the tests on a running Airflow with PostgreSQL and Chromium, which it installs if need be (Debian);
#             AIRFLOW=3.1.8, 3.2.2 or lowest runs a chosen part of them there, EXECUTOR=celery those for Celery with
#             Redis on machines that share no folder (CHOSEN=1 the part of them that CI runs), KEEP=1 leaves Airflow's
#             home with all logs, SCREENSHOTS=docs/images renews the documentation's pictures of the gallery
# make tools  installs what make e2e needs (EXECUTOR=celery: Redis, too);   make ready   sets up the environment alone
# make bench  runs the benchmarks against what a user would pick instead, for about half an hour on an idle
#             machine; ONLY="parse waiting" runs a part, QUICK=1 sees in a minute whether they run at all
# make lint   ruff;   make types   mypy;   make format   puts the code into shape
# make docs   builds the documentation into docs/_build/html: a warning is an error
# make wheel  builds wheel and sdist, leaves them in dist/, and installs the wheel into a clean environment

PYTHON ?= python3
export UV_PYTHON_DOWNLOADS := never
# Or each process of the tests would compile all modules for itself.
export PYTHONDONTWRITEBYTECODE :=

ifdef AIRFLOW
VENV := .venv-airflow-$(AIRFLOW)
# The tests of what an older Airflow may do in another way. What it and its packages warn of is no news.
PART := -W default -m every_version
else
VENV := .venv
endif
ifneq ($(filter e2e,$(MAKECMDGOALS)),)
ifneq ($(filter-out celery,$(EXECUTOR)),)
$(error EXECUTOR=$(EXECUTOR): it is celery, or is not set)
endif
ifneq ($(and $(EXECUTOR),$(AIRFLOW)),)
$(error EXECUTOR=$(EXECUTOR) runs on the newest Airflow alone, so AIRFLOW=$(AIRFLOW) cannot be set beside it)
endif
endif
READY := $(VENV)/.ready
CELERY_PART := on_celery$(if $(CHOSEN), and chosen)
IN_VENV := $(VENV)/bin

# Make would take a $ in them for its own.
override PROMPT := $(value PROMPT)
override IMAGE := $(value IMAGE)
override OUTPUT := $(value OUTPUT)
override WHAT := $(value WHAT)
export PROMPT IMAGE OUTPUT WHAT

.PHONY: demo ready tools test e2e bench lint types format docs wheel clean
.DEFAULT_GOAL := test

demo: $(READY)
	@$(IN_VENV)/python -m dev.demo

# Many tests wait for a clock: four processes keep two cores busy. tests/conftest.py says which of them runs what.
test: $(READY)
	$(IN_VENV)/python -m pytest -n 4 $(PART) $(if $(COVERAGE),--cov --cov-report=term)

ready: $(READY)

tools: $(READY)
	@$(IN_VENV)/python -m dev.postgres
	@$(IN_VENV)/python -m dev.chromium
	@$(if $(EXECUTOR),$(IN_VENV)/python -m dev.redis)

e2e: $(READY) tools
	$(IN_VENV)/python -m pytest $(if $(EXECUTOR),-m "$(CELERY_PART)",$(PART)) tests/e2e

bench: .venv-bench/.ready
	@.venv-bench/bin/python -m benchmarks $(if $(QUICK),--quick) $(ONLY)

lint: $(READY)
	$(IN_VENV)/ruff check
	$(IN_VENV)/ruff format --check

types: $(READY)
	$(IN_VENV)/mypy

format: $(READY)
	$(IN_VENV)/ruff check --fix
	$(IN_VENV)/ruff format

# From nothing: or a page that did not change keeps a link to one that was removed.
docs: $(READY)
	rm -rf docs/_build
	$(IN_VENV)/sphinx-build --builder html -W -n --keep-going --quiet docs docs/_build/html
	@$(IN_VENV)/python -m dev.check_site docs/_build/html

wheel: $(READY)
	$(IN_VENV)/python -m dev.check_wheel

clean:
	rm -rf .venv .venv-airflow-* .venv-bench benchmarks/results dist demo-output docs/_build .coverage* .mypy_cache .pytest_cache .ruff_cache

# All environments are compiled at once, or each of many processes would do it for itself.
.venv/.ready: pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=…")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv/bin/uv sync --frozen --quiet --compile-bytecode
	@touch $@

.venv-bench/.ready: pyproject.toml uv.lock
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check uv
	UV_PROJECT_ENVIRONMENT=.venv-bench .venv-bench/bin/uv sync --frozen --quiet --no-group docs --group bench --compile-bytecode
	@touch $@

# The constraints name Airflow's own version, too.
.venv-airflow-%/.ready: pyproject.toml dev/constraints/airflow-%.txt
	$(PYTHON) -m venv .venv-airflow-$*
	.venv-airflow-$*/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-airflow-$*/bin/uv pip install --quiet --compile-bytecode --python .venv-airflow-$*/bin/python \
		--constraints dev/constraints/airflow-$*.txt --editable . --group dev
	@touch $@
