"""docs/aws.md has the table that benchmarks.million prints, and its sizes are those of the templates."""

from __future__ import annotations

from pathlib import Path

from benchmarks import million

ROOT = Path(__file__).parents[2]


def test_the_docs_have_the_table() -> None:
    assert million.table() in (ROOT / "docs/aws.md").read_text()


def test_the_arithmetic_is_that_of_a_pocket_calculator() -> None:
    rows = dict(million.rows())
    # 1e6 x (300 x 0.10 + 100 x 0.50) / 1e6.
    assert rows["model, as calls"] == "US$ 80.00"
    # 50,000 x (40 + 200) s x (0.04048 + 4 x 0.004445) / 3600.
    assert rows["tools: Fargate on demand"] == "US$ 194.20"
    assert rows["text: shards"] == "2,000 of 500 tasks, 1 array job"


def test_sizes_are_those_of_the_job_definitions() -> None:
    text = (ROOT / "aws/base.yaml").read_text()
    for name, shape in (("Api", million.TEXT), ("Cli", million.TOOLS)):
        part = text.partition(f"  JobDefinition{name}:")[2].partition("\n  JobDefinition")[0]
        needs = [line.split("ResourceRequirements:")[1] for line in part.splitlines() if "ResourceRequirements" in line]
        vcpu = sum(float(need.split('Type: VCPU, Value: "')[1].split('"')[0]) for need in needs)
        memory = sum(int(need.split('Type: MEMORY, Value: "')[1].split('"')[0]) for need in needs)
        assert (vcpu, memory) == (float(shape.vcpu), shape.memory_mb)
