"""Finds the sessions of a file of events with Flink SQL, in a streaming job of parallelism 1, and prints one line for
each session.

    JAVA_HOME=… python3 flink_sessions.py GAP_SECONDS FILE
"""

import contextlib
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

# No functions in Python are used. Without this setting, Flink starts a server for them.
os.environ["_python_worker_execution_mode"] = "process"

from py4j.protocol import Py4JError
from pyflink.java_gateway import get_gateway
from pyflink.table import EnvironmentSettings, TableEnvironment

SETTINGS = {
    "parallelism.default": "1",
    # Operators pass rows on without copying them.
    "pipeline.object-reuse": "true",
    "table.local-time-zone": "UTC",
    # Without checkpoints the sink never closes its file. There is one checkpoint, at the end.
    "execution.checkpointing.interval": "1 h",
}

EVENTS = """
  CREATE TABLE events (
    event STRING, distinct_id STRING, `timestamp` TIMESTAMP_LTZ(3), properties ROW<`$current_url` STRING>,
    WATERMARK FOR `timestamp` AS `timestamp`
  ) WITH (
    'connector' = 'filesystem', 'path' = '{file}', 'format' = 'json', 'json.timestamp-format.standard' = 'ISO-8601'
  )
"""

RESULT = """
  CREATE TABLE sessions (
    distinct_id STRING, started BIGINT, ended BIGINT, events BIGINT, page_views BIGINT, entry_url STRING
  ) WITH (
    'connector' = 'filesystem', 'path' = '{folder}', 'format' = 'csv', 'csv.disable-quote-character' = 'true'
  )
"""

# A time in milliseconds. It is computed once for each session, and not for each event.
MILLIS = "1000 * UNIX_TIMESTAMP(CAST({0} AS STRING)) + EXTRACT(MILLISECOND FROM {0})"

# FIRST_VALUE does not work with session windows, because they merge. The minimum of time and URL gives the first URL.
SESSIONS = f"""
  INSERT INTO sessions
  SELECT distinct_id, {MILLIS.format("window_start")}, {MILLIS.format("window_end")} - 1000 * {{gap_seconds}},
    COUNT(*), COUNT(*) FILTER (WHERE event = '$pageview'),
    SUBSTRING(MIN(CONCAT(CAST(`timestamp` AS STRING), properties.`$current_url`)) FROM 24)
  FROM TABLE(SESSION(TABLE events PARTITION BY distinct_id, DESCRIPTOR(`timestamp`), INTERVAL '{{gap_seconds}}' SECOND(4)))
  GROUP BY distinct_id, window_start, window_end
"""


def find_sessions(gap_seconds, file, folder):
    # Flink's batch mode has no session windows.
    environment = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    for name, value in SETTINGS.items():
        environment.get_config().set(name, value)
    environment.execute_sql(EVENTS.format(file=Path(file).resolve().as_uri()))
    environment.execute_sql(RESULT.format(folder=Path(folder).as_uri()))
    environment.execute_sql(SESSIONS.format(gap_seconds=int(gap_seconds))).wait()


def end_java():
    """Ends the Java process and waits for it, so that its CPU counts as a child's."""
    # Java ends before it answers, which py4j would log as an error.
    logging.disable()
    with contextlib.suppress(Py4JError):
        get_gateway().jvm.java.lang.System.exit(0)
    os.wait()


def main(gap_seconds, file):
    with tempfile.TemporaryDirectory() as folder:
        find_sessions(gap_seconds, file, folder)
        end_java()
        for output in Path(folder).iterdir():
            with output.open() as lines:
                shutil.copyfileobj(lines, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
