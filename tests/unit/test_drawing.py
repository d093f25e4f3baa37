"""kagentctl show --svg: the picture of what it has found."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

from kagent.cli.ctl.drawing import drawn
from kagent.cli.ctl.show import Facts, Node, Picture

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</text><script>alert(1)</script>&\x1b[31m\u202e\ud800" + "鍵" * 200
KEY = Facts(
    "SHA256:" + "x" * 43, "RSA", 3072, "kernel", "", "me@laptop", [], "", None, "me", [], True
)


def node(serial: int, kind: str, name: str, *below: Node, key: Facts | None = None) -> Node:
    return Node(serial, "--alswrv", 1000, 1000, kind, name, "", "", key, list(below))


def session(*below: Node) -> dict[str, Node]:
    return {"Session Keyring": node(1, "keyring", "_ses", *below)}


def texts(svg: str) -> list[str]:
    return [one.text or "" for one in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def lines(svg: str) -> list[str]:
    """The processes that have one, once for each of their lines."""
    told = [one.get("class") or "" for one in ElementTree.fromstring(svg).iter(f"{SVG}path")]
    assert told.count("line you asks") <= 1  # SSH_AUTH_SOCK
    return sorted(one.removeprefix("line ") for one in told if one != "line you asks")


def test_who_possesses_what() -> None:
    ours = node(2, "asymmetric", "a key", key=KEY)
    agents = [
        replace(KEY, left="3600s"),
        replace(KEY, custody="sealed", type="ED25519"),
        replace(KEY, custody="token /usr/lib/token.so"),
        replace(KEY, custody="device"),
        replace(KEY, custody="behind /run/agent"),
        replace(KEY, custody="of-tomorrow"),
    ]
    svg = drawn(Picture(session(ours), agents, ""), "me", "today")
    assert lines(svg) == [
        *("front", "front"),  # the session, its own keyrings
        *("keeper", "keeper", "keeper"),  # and what opens sealed keys
        "worker",  # which it has as well
        *("worker asks", "worker asks", "worker asks"),  # tokens, and other agents
        "you",
    ]
    assert "custody kernel, 01:00:00 left" in texts(svg)
    assert "Held otherwise" in texts(svg)


def test_an_agent_of_another_login() -> None:
    """It possesses no keyring that it lists nothing of."""
    ours = node(2, "asymmetric", "a key", key=replace(KEY, listed=False))
    svg = drawn(Picture(session(ours), [], ""), "me", "today")
    assert lines(svg) == ["you"]


def test_without_an_agent() -> None:
    svg = drawn(Picture(session(), [], "SSH_AUTH_SOCK is not set"), "me", "today")
    assert "The agent tells nothing: SSH_AUTH_SOCK is not set" in texts(svg)
    assert lines(svg) == ["you"]
    assert "kagent's front" not in texts(svg)


def test_texts_of_others() -> None:
    """Whatever they are, it is a picture, and they are no part of it but as text that has room."""
    key = replace(
        KEY,
        comment=HOSTILE,
        custody=f"behind {HOSTILE}",
        constraints=[HOSTILE],
        certificate={"id": HOSTILE},
        shared_with=[HOSTILE],
    )
    ring = node(3, "keyring", HOSTILE, node(4, "user", HOSTILE), node(5, "key", "", key=key))
    svg = drawn(Picture(session(ring), [key], HOSTILE), HOSTILE, "today")
    root = ElementTree.fromstring(svg)
    assert {one.tag.removeprefix(SVG) for one in root.iter()} == {
        *("svg", "title", "desc", "style", "rect", "text", "path", "circle")
    }
    assert "\x1b" not in svg
    assert "\u202e" not in svg
    assert max(map(len, texts(svg))) < 120


def test_many_keys_that_sign_nothing() -> None:
    plain = [node(10 + number, "user", f"number {number}") for number in range(30)]
    told = texts(drawn(Picture(session(*plain), [], ""), "me", "today"))
    assert "user: number 3" in told
    assert "user: number 4" not in told
    assert "and 26 more keys that sign nothing" in told


if __name__ == "__main__":  # to look at it
    ours = node(2, "asymmetric", "a key", key=replace(KEY, shared_with=["bob", "carol"]))
    ring = node(3, "keyring", "kagent:user", ours, node(4, "user", "x" * 300))
    agents = [
        replace(KEY, left="3600s", constraints=["only here → build@ci.example.org"] * 3),
        replace(KEY, custody="sealed", type="ED25519-CERT", certificate={"id": "me at work"}),
        replace(KEY, custody="token /usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"),
        replace(KEY, custody="device", type="ED25519-SK", comment=HOSTILE),
        replace(KEY, custody="behind /run/user/1000/gnupg/S.gpg-agent.ssh"),
    ]
    both = session(*[node(10 + n, "user", "plain") for n in range(7)])
    both["User Keyring"] = node(9, "keyring", "_uid.1000", ring)
    print(drawn(Picture(both, agents, ""), "me", "today"))
