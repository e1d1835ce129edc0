# make demo · make quick · make test · make check · make audit · make bench
# Each word makes the environment .venv by itself when it is missing or older than pyproject.toml, or of another
# version than the Python that PYTHON= names.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo quick slow test coverage check format docs bench audit lock
.DELETE_ON_ERROR:

# Only a Python that was asked for counts: without PYTHON= the environment stays what it is.
ifneq ($(origin PYTHON),file)
ifneq ($(shell $(PYTHON) --version),$(if $(wildcard $(BIN)/python),$(shell $(BIN)/python --version)))
.venv/installed: FORCE
endif
endif
FORCE:

# First the version: pip would look for minutes for releases that an old Python can use.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
	"Poker Therapist needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + \
	": name a newer one, as in `make $(or $(MAKECMDGOALS),demo) PYTHON=python3.12`")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: .venv/installed
	$(BIN)/yoyo apply
	$(BIN)/yoyo list
	$(BIN)/python docs/demo.py

# All that is not marked slow: two minutes on two cores.
quick: .venv/installed
	$(BIN)/python -m pytest -m "not slow"

slow: .venv/integrations-installed
	$(BIN)/python -m pytest -m slow

test: .venv/integrations-installed
	$(BIN)/python -m pytest

# The quick tests, and how much of the package they run: measuring takes half as long again, and what the slow
# ones add is repetition. Fails below the floor in pyproject.toml.
coverage: .venv/installed
	rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/coverage run -m pytest -m "not slow"
	$(BIN)/coverage combine --quiet build/coverage
	$(BIN)/coverage report

# Runs all of them, also where one has failed. The tests are those of what every migration must have.
CHECKS := "poker-therapist check" "ruff check" "ruff format --check" "mypy" "lint-imports --no-logo" \
	"sqlfluff lint --processes 0 sql_migrations poker_therapist" \
	"squawk sql_migrations/postgresql/*.sql sql_migrations/citus/*.sql" \
	"python -m pytest -q -n0 -m 'not slow' tests/migrations/test_migrations.py tests/migrations/test_twins.py"

check: .venv/installed
	@failed=0; for check in $(CHECKS); do \
		echo "$$check"; eval "$(BIN)/$$check" || failed=1; \
	done; exit $$failed

format: .venv/installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Writes docs/api.md, the pictures of a rehearsal, and the schema in docs/STORAGE_ARCHITECTURE.md.
docs: .venv/installed
	$(BIN)/python docs/draw_schema.py
	$(BIN)/python docs/draw_rehearsal.py
	$(BIN)/python docs/write_api.py

# What only the tests of docs/integrations.md need: half a minute.
.venv/integrations-installed: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,integrations]'
	touch $@

# What only the benchmarks need, on top of the rest.
.venv/bench-installed: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench]'
	touch $@

# Writes benchmarks/results.json, docs/benchmarks.md and its pictures; needs 8 GB of room in $TMPDIR.
bench: .venv/bench-installed
	$(BIN)/python -m benchmarks

# What only the audit needs.
.venv/audit-installed: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[audit]'
	touch $@

# Fails when a version in constraints.txt has a known vulnerability; says so when that cannot be looked up.
audit: .venv/audit-installed
	$(BIN)/python .ci/audit.py

# Writes constraints.txt: the newest versions that pyproject.toml allows, in an environment of their own.
lock:
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench,integrations,audit]'
	build/lock/bin/python -m pip freeze --exclude-editable > constraints.txt
