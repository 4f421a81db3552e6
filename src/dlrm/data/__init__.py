"""Raw log -> prepared dataset -> batches."""

SOURCES: dict[str, str] = {
    "criteo": "dlrm.data.criteo:CriteoSource",
    "clicks": "dlrm.data.clicks:ClicksSource",
}
"""The data sources by name, as `module:class`; imported when used."""
