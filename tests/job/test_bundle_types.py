"""Databricks' own types accept every resource of databricks.yml and refuse planted faults.

databricks-bundles 0.275 has types for jobs, schemas and volumes, but none for registered models and experiments: for
those, bundle_check has lists of fields.
"""

import copy

import pytest
from databricks.bundles.jobs import Job
from databricks.bundles.schemas import Schema
from databricks.bundles.volumes import Volume

from lakevision.job import bundle, bundle_check

TYPES = {"jobs": Job, "schemas": Schema, "volumes": Volume}


def test_databricks_types_accept_every_resource(resolved):
    assert set(resolved["resources"]) == set(TYPES) | set(bundle_check.FIELDS)
    for kind, cls in TYPES.items():
        for resource in resolved["resources"][kind].values():
            cls.from_dict(resource)


@pytest.mark.parametrize(
    "plant",
    [
        pytest.param(lambda r: r["jobs"]["retrain"].update(max_concurrent_run=1), id="unknown field of a job"),
        pytest.param(lambda r: r["jobs"]["retrain"]["tasks"][0].update(max_retry=1), id="unknown field of a task"),
        pytest.param(
            lambda r: r["jobs"]["retrain"]["health"]["rules"][0].update(metric="RUN_DURATION"),
            id="bad enum of a health rule",
        ),
        pytest.param(
            lambda r: r["jobs"]["retrain"]["job_clusters"][0]["new_cluster"].update(data_security_mode="DEDICATED"),
            id="bad access mode",
        ),
        pytest.param(lambda r: r["jobs"]["retrain"]["schedule"].update(pause_status="ON"), id="bad pause status"),
        pytest.param(
            lambda r: r["jobs"]["retrain"]["schedule"].pop("quartz_cron_expression"), id="schedule without expression"
        ),
        pytest.param(lambda r: r["jobs"]["retrain"]["tasks"][0].pop("task_key"), id="task without key"),
        pytest.param(lambda r: r["jobs"]["retrain"]["parameters"][0].pop("default"), id="parameter without default"),
        pytest.param(lambda r: r["schemas"]["lakevision"].pop("catalog_name"), id="schema without catalog"),
        pytest.param(
            lambda r: r["schemas"]["lakevision"]["grants"][0].update(privileges=["USE SCHEMA"]), id="bad privilege"
        ),
        pytest.param(lambda r: r["volumes"]["store"].update(volume_type="INTERNAL"), id="bad volume type"),
        pytest.param(lambda r: r["volumes"]["store"].update(schema="lakevision"), id="unknown field of a volume"),
    ],
)
def test_databricks_types_refuse_a_planted_fault(plant, variables):
    resources = copy.deepcopy(bundle.resolve(bundle.read(), "prod", variables["prod"]))["resources"]
    plant(resources)
    with pytest.raises((TypeError, ValueError, KeyError)):
        for kind, cls in TYPES.items():
            for resource in resources[kind].values():
                cls.from_dict(resource)
