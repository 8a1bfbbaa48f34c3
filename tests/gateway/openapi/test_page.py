from __future__ import annotations

import base64
import hashlib
import re

from weft.gateway.openapi import page


def test_the_page_loads_nothing_from_elsewhere():
    html = page.HTML.decode()
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", html)
    assert "@import" not in html
    assert "url(http" not in html
    assert 'fetch("/openapi.json")' in html


def test_its_policy_allows_what_is_in_it_and_no_more():
    html = page.HTML.decode()
    policy = dict(page.HEADERS)[b"content-security-policy"].decode()
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        inline = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert len(inline) == 1
        digest = base64.b64encode(hashlib.sha256(inline[0].encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"<[^>]+ (?:style|on[a-z]+)=", html.split("<script>")[0])


def test_its_script_sets_text_only():
    assert not re.search(
        rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", page.HTML
    )
