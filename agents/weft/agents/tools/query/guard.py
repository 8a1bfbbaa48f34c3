"""What may be asked of a database, judged by PostgreSQL's own reading of it.

A question becomes a temporary view in a transaction that is never committed: PostgreSQL parses it, finds every name, and
keeps the tree of what it means, which is looked through for each table, function and operator. What runs then is that
view and not the text again, so what was judged is what runs. No parser of ours has to agree with PostgreSQL's.

A view cannot hold a statement that changes something; what a function could do is why functions are asked for by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from weft import rpc
from weft.agents.tools.query.settings import QuerySettings

_LISTED = 10

# Of PostgreSQL's own, those that give another answer each time but change nothing and tell nothing of the server.
_VOLATILE = frozenset(
    {
        "random",
        "random_normal",
        "gen_random_uuid",
        "clock_timestamp",
        "timeofday",
        "uuidv4",
        "uuidv7",
    }
)
# Those that depend on settings such as the time zone, or on the clock. All others that are not immutable are refused:
# among them are some that read settings, files, other sessions, or any table by its name (table_to_xml).
# fmt: off
_STABLE = frozenset({
    "now", "statement_timestamp", "transaction_timestamp", "age", "date_part", "date_trunc", "date_bin", "extract",
    "timezone", "to_char", "to_date", "to_timestamp", "make_timestamptz", "isfinite", "date", "time", "timestamp",
    "timestamptz", "timetz", "interval", "overlaps", "date_add", "date_subtract", "concat", "concat_ws", "format",
    "quote_nullable", "quote_literal", "array_to_string", "string_to_array", "to_json", "to_jsonb", "row_to_json",
    "array_to_json", "json_build_object", "json_build_array", "jsonb_build_object", "jsonb_build_array",
    "json_object_agg", "jsonb_object_agg", "json_agg", "jsonb_agg", "json_agg_strict", "jsonb_agg_strict",
    "json_object_agg_strict", "json_object_agg_unique", "json_object_agg_unique_strict", "jsonb_object_agg_strict",
    "jsonb_object_agg_unique", "jsonb_object_agg_unique_strict", "json_populate_record", "jsonb_populate_record",
    "json_populate_recordset", "jsonb_populate_recordset", "json_to_record", "jsonb_to_record", "json_to_recordset",
    "jsonb_to_recordset", "jsonb_path_exists_tz", "jsonb_path_match_tz", "jsonb_path_query_tz",
    "jsonb_path_query_array_tz", "jsonb_path_query_first_tz", "to_tsvector", "to_tsquery", "plainto_tsquery",
    "phraseto_tsquery", "websearch_to_tsquery", "ts_headline", "generate_series", "enum_range", "enum_first",
    "enum_last", "textanycat", "anytextcat", "array_agg", "string_agg", "min", "max", "count", "in_range",
    "any_value", "money", "numeric", "text", "mul_d_interval",
})
# fmt: on


class QueryRefused(rpc.InvalidArgument):
    """The database may not be asked this."""

    reason = "QUERY_REFUSED"


class RoleRefused(rpc.FailedPrecondition):
    """The role of the database may do too much."""

    reason = "DATABASE_ROLE_REFUSED"


def judge(settings: QuerySettings, used: Iterable[Any]) -> None:
    """Lets a question pass that uses nothing but what is allowed.

    Args:
        settings: what is allowed.
        used: what it uses: rows of the query `used_by_question`.

    Raises:
        QueryRefused: it uses something else; the message names it, and what there is.
    """
    tables, functions = set(), set()
    for each in used:
        name = f"{each['schema']}.{each['name']}"
        if each["kind"] == "table":
            if not settings.may_read(each["schema"], each["name"]):
                tables.add(name)
        elif not _may_call(settings, each):
            functions.add(name.removeprefix("pg_catalog."))
    if tables:
        raise QueryRefused(
            f"The tables {_listed(tables)} may not be read; those that may are {_listed(settings.tables)}."
        )
    if functions:
        raise QueryRefused(
            f"The functions {_listed(functions)} may not be called: only those that calculate."
        )


def check_role(role: Any) -> None:
    """Lets a role pass that cannot do more than read and write tables.

    Raises:
        RoleRefused: it can.
    """
    if not role["may_ask"]:
        raise RoleRefused(
            f"The role {role['name']} may make no temporary view, by which questions are judged: grant it TEMPORARY on the "
            "database, which must be no standby."
        )
    if role["powers"]:
        raise RoleRefused(
            f"The role {role['name']} is {', '.join(role['powers'])}: give the tool a role of its own, which may "
            "only read what it is for."
        )


def _may_call(settings: QuerySettings, function: Any) -> bool:
    schema, name = function["schema"], function["name"]
    if settings.may_call(schema, name):
        return True
    if schema != "pg_catalog" or not function["builtin"]:
        return False
    if function["volatility"] == "i" or (
        function["kind"] == "operator" and function["volatility"] == "s"
    ):
        return True  # operators of PostgreSQL's own calculate, some by the time zone
    return name in (_STABLE if function["volatility"] == "s" else _VOLATILE)


def _listed(names: Iterable[str]) -> str:
    found = sorted(names)
    return ", ".join(found[:_LISTED]) + (", ..." if len(found) > _LISTED else "")
