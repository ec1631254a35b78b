"""The exception for each failed request."""

import pytest

from device.store import types


@pytest.mark.parametrize(
    "status, text, kind",
    [
        (None, "error sending request", types.Unavailable),
        (500, "", types.Unavailable),
        (503, "SlowDown", types.Unavailable),
        (429, "", types.Unavailable),
        (408, "", types.Unavailable),
        (409, "OperationAborted", types.Unavailable),
        (401, "", types.Denied),
        (403, "AccessDenied", types.Denied),
        (400, "<Code>ExpiredToken</Code>", types.Denied),
        (404, "<Code>NoSuchBucket</Code>", types.Denied),
        (404, "<Code>NoSuchKey</Code>", types.Unavailable),
        (301, "", types.Denied),
        (400, "InvalidArgument", types.Refused),
        (413, "", types.Refused),
        (422, "", types.Refused),
    ],
)
def test_status_and_text_select_exception(status, text, kind):
    assert type(types.classify(status, text)) is kind
