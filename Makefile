# servestorm: `make run` answers the question, `make test` proves the tool. Both make .venv first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Wheels of torch for a machine without a GPU come from PyTorch's own CPU index: set TORCH_INDEX to its address,
# as PyTorch's install page gives it. Empty means whatever pip is configured for (on Linux that brings several GB of CUDA).
TORCH_INDEX ?=
# Processes that share the tests: tests wait for servers half of the time. Each needs up to 3 GB with its servers.
TEST_WORKERS ?= 3
# The package with no hash: the file says why.
TORCH_LIST := serving/images/requirements/torch.txt
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: run test venv lint types contracts check wheel-check core-check lock clean airgap-images sbom pin-digests kind-up kind-down

run: venv
	$(BIN)/servestorm run studies/quickstart.yaml

test: venv
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadgroup --no-loadscope-reorder

venv: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml requirements/tools.txt requirements/dev.txt $(TORCH_LIST)
	@command -v $(PYTHON) >/dev/null || { echo "servestorm needs $(PYTHON); on Debian: apt-get install python3.11 python3.11-venv"; exit 3; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "venv failed; on Debian: apt-get install python3.11-venv"; exit 3; }
	@echo "Installing the pinned packages into $(VENV) (about 4 GB; a few minutes the first time)"
	$(INSTALL) --require-hashes --no-deps -r requirements/tools.txt
	$(INSTALL) --require-hashes --no-deps --no-build-isolation -r requirements/dev.txt
	$(INSTALL) $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) -r $(TORCH_LIST)
	PYTHONWARNINGS=ignore $(INSTALL) --no-deps --no-index --no-build-isolation -e .
	@$(BIN)/python -m pip check || { echo "requirements/dev.txt does not fit pyproject.toml: pip install in $(VENV) what is missing, then run make lock"; exit 3; }
	@touch $@
	@echo "Installed: type \`. $(BIN)/activate\` once in each shell to have servestorm and locust on the PATH"

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv
	$(BIN)/mypy

contracts: venv
	$(BIN)/lint-imports

wheel-check: venv
	PYTHON=$(BIN)/python sh tests/wheel_check.sh

# The wheel without extras, in a fresh environment: what works there, and what each missing extra says.
core-check: venv
	PYTHON=$(BIN)/python sh tests/core/check.sh

check: lint types contracts wheel-check core-check test

# All container images from Debian and PyPI packages, nothing pulled: see docs/how-to/images.md.
airgap-images:
	@PYTHON=$(PYTHON) TORCH_INDEX=$(TORCH_INDEX) sh serving/images/airgap.sh

# What those images hold of Debian and Python packages, as CycloneDX documents.
sbom:
	@mkdir -p build/sbom
	@version=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' servestorm/__init__.py); \
	for image in savedmodel torchserve trainer generator haproxy prometheus; do \
	  $(PYTHON) serving/images/sbom.py servestorm/$$image:$$version > build/sbom/$$image.cdx.json || exit $$?; \
	  echo "build/sbom/$$image.cdx.json"; \
	done

# The digests of the images that docker-compose.yml pulls, from their registry into .env: see docs/how-to/docker.md.
pin-digests:
	@$(PYTHON) deploy/compose/pin_digests.py

# A cluster in Docker with the chart in it, from images that were built here: see docs/how-to/cluster.md.
kind-up:
	@deploy/k8s/kind-up.sh

kind-down:
	kind delete cluster --name servestorm

# constraints.txt from .venv, and every list with hashes from that: see docs/how-to/verify-downloads.md.
lock: venv
	@mkdir -p build
	sh requirements/lock.sh $(BIN)/python

clean:
	rm -rf build dist runs .pytest_cache .mypy_cache .ruff_cache
