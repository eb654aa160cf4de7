"""What can be said about the container files without a container engine.

They are read as text: no YAML library is among the dependencies, and both files are kept plain.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ingest_service.config import SETTINGS, load_settings

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
DOCKERIGNORE = (ROOT / ".dockerignore").read_text(encoding="utf-8")


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """(instruction, arguments) in order; comments gone, continued lines joined."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    split = (line.partition(" ") for line in joined.splitlines() if line.strip())
    return [(word.upper(), arguments.strip()) for word, _, arguments in split]


def stages(dockerfile: str) -> list[list[tuple[str, str]]]:
    """The instructions of each stage, FROM first."""
    found: list[list[tuple[str, str]]] = []
    for word, arguments in instructions(dockerfile):
        if word == "FROM":
            found.append([])
        found[-1].append((word, arguments))
    return found


def environment(stage: list[tuple[str, str]]) -> dict[str, str]:
    """What the ENV instructions of a stage set."""
    pairs = (pair for word, arguments in stage if word == "ENV" for pair in arguments.split())
    return dict(pair.split("=", 1) for pair in pairs)


def block(text: str, *path: str) -> str:
    """What stands below a key of the compose file, found by indentation: block(COMPOSE, "services")."""
    for depth, key in enumerate(path):
        pad = "  " * depth
        match = re.search(rf"^{pad}{re.escape(key)}:(.*)\n((?:(?:{pad}  .*|[ ]*)\n)*)", text, re.MULTILINE)
        assert match is not None, f"no {'.'.join(path[: depth + 1])}"
        text = f"{match.group(1).strip()}\n{match.group(2)}" if match.group(1).strip() else match.group(2)
    return text


def items(text: str) -> list[str]:
    """The entries of a list written one a line."""
    return [match.strip("\"' ") for match in re.findall(r"^\s*- (.*)$", text, re.MULTILINE)]


def pairs(text: str) -> dict[str, str]:
    """The entries of a mapping of plain values."""
    found = re.findall(r"^\s+([A-Z][A-Z0-9_]*): (.*)$", text, re.MULTILINE)
    return {name: value.strip("\"'") for name, value in found}


SERVICES = ("postgres", "ollama", "ingest")
BUILD, FINAL = stages(DOCKERFILE)


def final(word: str) -> list[str]:
    """The arguments of an instruction in the final stage."""
    return [arguments for found, arguments in FINAL if found == word]


def test_compose_is_plain_yaml_with_the_three_services() -> None:
    assert "\t" not in COMPOSE
    for number, line in enumerate(COMPOSE.splitlines(), 1):
        indent = len(line) - len(line.lstrip(" "))
        assert indent % 2 == 0, f"line {number}"
        assert re.match(r"^\s*(#.*|- \S.*|[\w-]+:( \S.*)?|)$", line), f"line {number}: {line}"
    assert tuple(re.findall(r"^  ([\w-]+):$", block(COMPOSE, "services"), re.MULTILINE)) == SERVICES


def test_ports_are_published_on_loopback_only() -> None:
    published = [
        port
        for service in SERVICES
        if "\n    ports:\n" in block(COMPOSE, "services", service)
        for port in items(block(COMPOSE, "services", service, "ports"))
    ]
    assert published == ["127.0.0.1:50051:50051"]
    assert "network_mode" not in COMPOSE


@pytest.mark.parametrize("service", SERVICES)
def test_volumes_are_named_and_say_that_they_are_written(service: str) -> None:
    mounts = items(block(COMPOSE, "services", service, "volumes"))
    assert mounts
    declared = re.findall(r"^  ([\w-]+):$", block(COMPOSE, "volumes"), re.MULTILINE)
    for mount in mounts:
        name, target, mode = mount.split(":")
        assert mode == "rw", mount
        assert name in declared, mount
        assert target.startswith("/"), mount


def test_postgres_18_keeps_its_data_below_the_mount() -> None:
    assert block(COMPOSE, "services", "postgres", "image") == "postgres:18\n"
    assert items(block(COMPOSE, "services", "postgres", "volumes")) == ["postgres:/var/lib/postgresql:rw"]


def test_no_secret_is_written_down() -> None:
    for line in COMPOSE.splitlines():
        name, _, value = line.strip().partition(": ")
        if re.search("password|secret|token|api_?key", name, re.IGNORECASE) and not name.startswith("#"):
            assert re.fullmatch(r"\$\{[A-Z_]+:\?.+\}", value), line
    for text in (COMPOSE, DOCKERFILE):
        assert not re.search(r"://[^/\s@]*:[^/\s@]*@", text), "a password in a URL"
    assert not [arguments for word, arguments in BUILD + FINAL if word == "ARG"], "ARGs stay in the history"


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_a_healthcheck_and_a_pinned_image(service: str) -> None:
    assert "test: [" in block(COMPOSE, "services", service, "healthcheck")
    image = block(COMPOSE, "services", service, "image").strip()
    assert ":" in image
    assert not image.endswith(":latest")


def test_the_service_waits_for_both_others() -> None:
    needed = block(COMPOSE, "services", "ingest", "depends_on")
    assert re.findall(r"(\w+):\n\s+condition: service_healthy", needed) == ["postgres", "ollama"]


@pytest.mark.parametrize(
    "line", ["read_only: true", "cap_drop: [ALL]", 'security_opt: ["no-new-privileges:true"]', "init: true"]
)
def test_the_service_is_confined(line: str) -> None:
    assert f"\n    {line}\n" in block(COMPOSE, "services", "ingest")


def test_docker_waits_longer_than_a_drain_takes() -> None:
    settings = pairs(block(COMPOSE, "services", "ingest", "environment"))
    grace = block(COMPOSE, "services", "ingest", "stop_grace_period").strip()
    assert grace.endswith("s")
    # Running calls are cancelled 2 s after the drain; then worker, database and threads are closed.
    assert int(grace[:-1]) >= float(settings["INGEST_DRAIN_SECONDS"]) + 20


def test_the_settings_of_the_containers_are_good_ones() -> None:
    image = environment(FINAL)
    compose = pairs(block(COMPOSE, "services", "ingest", "environment"))
    settings = load_settings(image | compose)
    assert settings.listen == "0.0.0.0:50051"
    assert str(settings.data_dir) in final("VOLUME")[0]
    assert items(block(COMPOSE, "services", "ingest", "volumes")) == [f"data:{settings.data_dir}:rw"]
    assert {name for name in image | compose if name.startswith("INGEST_")} <= {
        f"INGEST_{setting.name}" for setting in SETTINGS
    }


def test_the_image_alone_does_not_open_an_unauthenticated_port() -> None:
    assert "INGEST_ALLOW_INSECURE" not in environment(FINAL)


def test_the_final_stage_is_not_root() -> None:
    user, group = (int(number) for number in final("USER")[-1].split(":"))
    assert user >= 1000
    assert group >= 1000
    words = [word for word, _ in FINAL]
    assert "RUN" not in words[words.index("USER") :], "what runs after USER would write as the service's user"


def test_the_final_stage_says_how_it_is_run() -> None:
    assert "/opt/model-ingest/healthcheck.py" in final("HEALTHCHECK")[0]
    assert "--timeout=5s" in final("HEALTHCHECK")[0]
    assert "/opt/model-ingest/healthcheck.py" in block(COMPOSE, "services", "ingest", "healthcheck")
    assert final("STOPSIGNAL") == ["SIGTERM"]
    assert final("EXPOSE") == ["50051"]
    assert final("ENTRYPOINT") == ['["python", "-m", "ingest_service"]']
    assert final("CMD") == ['["serve"]']
    assert environment(FINAL)["MALLOC_MMAP_THRESHOLD_"] == environment(FINAL)["MALLOC_TRIM_THRESHOLD_"]


def test_no_build_tool_reaches_the_final_stage() -> None:
    commands = " ".join(arguments for word, arguments in FINAL if word in {"RUN", "COPY", "ADD"})
    assert not re.search(r"\bpip\b|gcc|build-essential|-dev\b|python3-venv|/build", commands)
    assert "--without-pip /opt/model-ingest" in DOCKERFILE


def test_dependencies_come_from_the_locks_with_hashes() -> None:
    installs = [
        command
        for word, arguments in BUILD + FINAL
        if word == "RUN"
        for command in arguments.split("&&")
        if re.search(r"\bpip\b.* install\b", command)
    ]
    from_locks = [command for command in installs if "-r " in command]
    assert [re.findall(r"(\w+)\.lock", command) for command in from_locks] == [["build"], ["runtime"]]
    for command in installs:
        assert "--no-deps" in command, command
        assert ("--require-hashes" in command) != ("--no-index" in command), command
        assert not re.search(r"\s(-e|--editable)\s", command), command


def test_both_stages_stand_on_the_same_base() -> None:
    bases = [stage[0][1].split(" ")[0] for stage in (BUILD, FINAL)]
    assert bases[0] == bases[1]
    assert re.fullmatch(r"docker\.io/library/debian:\w+-slim", bases[0])


def test_the_build_context_is_an_allow_list() -> None:
    rules = [line for line in DOCKERIGNORE.splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    for path in allowed:
        assert (ROOT / path).exists(), path
    copied = {
        source
        for word, arguments in BUILD + FINAL
        if word == "COPY" and "--from=" not in arguments
        for source in arguments.split()[:-1]
    }
    for source in copied:
        assert any(path == source or path.startswith(f"{source}/") for path in allowed), source
    assert not any(".env" in path for path in allowed)
