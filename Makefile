# make rehearse   a whole life of Lab 3 on this machine: deploy, run, report, tear down, receipt   (LAB=1 for another)
# make test       the tests
# make lint       ruff, shellcheck, mypy, cdk synth with cdk-nag, cfn-lint
# make check      those first, for they find a slip in seconds, then the tests
# make bench      what we measure beside our peers: docs/benchmarks.md
# make bench-gpu  the same on a CUDA GPU, within 25 minutes; DRY=1 prints the plan, PEERS=~/peers is where peers lie
# make soak       LIVES=1000 SEED=1: whole lives of labs under random faults; an ended soak goes on where it was
LAB  ?= 3
NAME ?= default
LIVES ?= 100
SEED ?= 1
BIN  := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)

.PHONY: setup rehearse test lint check bench bench-gpu soak
.DEFAULT_GOAL := rehearse

setup:
	@./setup.sh

rehearse:
	@./setup.sh sshd
	@rehearsal/life.sh $(LAB) $(NAME)

test:
	@./setup.sh sshd slurm tests
	pytest -n 2 --dist loadfile

check: lint test

lint:
	@./setup.sh
	ruff check .
	ruff format --check .
	git ls-files '*.sh' .ci/run | xargs shellcheck
	mypy .
	cdk synth --quiet --output cdk.out
	cfn-lint cdk.out/*.template.json

bench:
	@./setup.sh sshd
	python -m benchmarks

bench-gpu:
	@python -m benchmarks.gpu $(if $(DRY),--dry) $(if $(PEERS),--peers $(PEERS))

soak:
	@./setup.sh sshd
	python -m tests.soak --lives $(LIVES) --seed $(SEED)
