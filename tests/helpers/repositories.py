"""Model repositories made of configurations alone, for what the launcher decides before it starts a server."""

from medimageparse_serving.launch.built_files import BUILT_FILES

ENSEMBLE = 'platform: "ensemble"\nstep [ { model_name: "first" model_version: -1 }, { model_name:"second" } ]'


CALLER = 'parameters { key: "window_model" value { string_value: "inner" } }\nparameters { key: "window_size" }'


def make_repository(folder, configs, networks=()):
    for name, config in configs.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(config)
        if name in networks:
            (folder / name / "configs").mkdir()
    return folder


def build(repository, model):
    for file in BUILT_FILES["cpu"]:
        (repository / f"{model}_network" / "1" / file).touch()
    (repository / model / "1" / "networks.json").touch()
