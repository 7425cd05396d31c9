"""A ModelServerConfig is taken, or refused with TensorFlow Serving's text."""

from pathlib import Path

import pytest
from google.protobuf import text_format

from serving.savedmodel_server.errors import RequestError
from serving.savedmodel_server.versions.model_config import check_new_models, check_served_models, configs_of_request
from serving.savedmodel_server.versions.model_versions import VersionPolicy


@pytest.fixture(scope="module")
def parsed():
    """A ModelServerConfig of text (importing the message imports tensorflow)."""
    from tensorflow_serving.config import model_server_config_pb2

    def parse(*models):
        text = "".join(f"config {{ {model} }}" for model in models)
        return text_format.Parse(f"model_config_list {{ {text} }}", model_server_config_pb2.ModelServerConfig())

    return parse


def checked(proto, served=()):
    """As a reload checks it."""
    configs = configs_of_request(proto)
    check_served_models(proto, served)
    check_new_models(proto, served)
    return configs


GOOD = "name: 'm' base_path: '/m'"


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", VersionPolicy()),
        ("model_version_policy { latest { num_versions: 3 } }", VersionPolicy(latest=3)),
        ("model_version_policy { latest { } }", VersionPolicy()),
        ("model_version_policy { all { } }", VersionPolicy(every=True)),
        ("model_version_policy { specific { versions: 4 } }", VersionPolicy(specific=frozenset({4}))),
        ("model_version_policy { specific { } }", VersionPolicy(specific=frozenset())),
    ],
)
def test_every_policy_is_taken(parsed, text, policy):
    (config,) = checked(parsed(f"{GOOD} model_platform: 'tensorflow' {text}"))
    assert config.policy == policy


@pytest.mark.parametrize("platform", ["model_platform: 'tensorflow'", "model_type: TENSORFLOW"])
@pytest.mark.parametrize(
    ("path", "folder"), [("/a/b", "/a/b"), ("file:///a/b", "/a/b"), ("file://host/a", "/a"), ("file://", "/")]
)
def test_a_base_path_is_a_folder_or_its_uri(parsed, platform, path, folder):
    (config,) = checked(parsed(f"name: '' base_path: '{path}' {platform}"))
    assert config.base_path == Path(folder)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (f"{GOOD} model_type: OTHER", "ModelServerConfig::model_type choice 2 not supported."),
        (f"{GOOD} model_type: TENSORFLOW model_platform: 'tensorflow'", "Illegal setting both"),
        (f"{GOOD}", "Illegal setting neither"),
        (f"{GOOD} model_platform: 'Tensorflow'", "unsupported platform Tensorflow"),
        ("name: 'm' base_path: 'gs://a/b' model_platform: 'tensorflow'", "File system scheme 'gs' not implemented"),
        ("name: 'm' base_path: 'a://' model_platform: 'tensorflow'", "File system scheme 'a' not implemented"),
        ("name: 'm' base_path: '1a:///' model_platform: 'tensorflow'", "to have an absolute path or URI"),
        (f"{GOOD} model_platform: 'tensorflow' logging_config {{ }}", "No request-logger-creator provided."),
    ],
)
@pytest.mark.parametrize("served", [(), ("other",)])
def test_what_cannot_be_served_is_refused(parsed, model, says, served):
    with pytest.raises(RequestError, match=says.replace("(", r"\(")):
        checked(parsed(model), served)


def test_an_unknown_platform_is_told_as_a_change_where_the_model_is_served(parsed):
    with pytest.raises(RequestError, match="Illegal to change a model's platform"):
        checked(parsed(f"{GOOD} model_platform: 'x'"), served=("m",))


def test_a_list_without_models_is_taken(parsed):
    proto = parsed()
    proto.model_config_list.SetInParent()
    assert checked(proto) == []
