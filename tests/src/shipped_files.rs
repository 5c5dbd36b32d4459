//! What the repository ships for running Weir, docker-compose.yml, the Dockerfiles, envoy.yaml and
//! the manifests for Istio, agrees with itself and with what `weir` and the filter accept.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weir_filter::config::Config;
use xtask::workspace;

use crate::repository::{fields, manifests, read, text, text_fields, variables_in, weir, yaml};

const COMPOSE: &str = "docker-compose.yml";
const ENVOY: &str = "envoy/envoy.yaml";
const NATIVE_FILTER: &str = "envoy/native-filter.yaml";
const CONTROL_PLANE: &str = "envoy/istio/control-plane.yaml";
const WASM_PLUGIN: &str = "envoy/istio/wasm-plugin.yaml";
const DOCKERFILES: [&str; 2] = ["control-plane/Dockerfile", "envoy/Dockerfile"];
/// What stands in the plugin's configuration in place of the gateway token.
const TOKEN_PLACEHOLDER: &str = "change-me-gateway-token";

/// Every variable that the files set is one that `weir serve --help` names, all that it calls
/// required are set, and `weir` takes them: it gets as far as Postgres.
#[test]
fn the_variables_are_those_that_weir_accepts() -> Result<()> {
    let help = weir(&["serve", "--help"], &BTreeMap::new())?;
    let accepted = variables_in(&help);
    let required: BTreeSet<_> =
        help.lines().filter(|line| line.ends_with(" required")).flat_map(variables_in).collect();
    assert_eq!(required.len(), 4, "in {help}");

    let compose = yaml(COMPOSE)?;
    let in_compose = text_fields(&compose["services"]["control-plane"]["environment"])?;
    let of_envoy = text_fields(&compose["services"]["envoy"]["environment"])?;
    let in_deployment = deployment_variables()?;
    for (file, set) in [(COMPOSE, in_compose.keys()), (CONTROL_PLANE, in_deployment.keys())] {
        let set: BTreeSet<_> = set.cloned().collect();
        let unknown: Vec<_> = set.difference(&accepted).collect();
        assert!(unknown.is_empty(), "{file} sets {unknown:?}, which weir does not know");
        let missing: Vec<_> = required.difference(&set).collect();
        assert!(missing.is_empty(), "{file} does not set {missing:?}, which weir requires");
    }
    for (name, value) in &of_envoy {
        assert_eq!(in_compose.get(name), Some(value), "{name} of envoy and of the control plane");
    }

    let said = weir(&["migrate"], &filled_in(&in_compose)?)?;
    assert!(said.contains("caused by"), "not even Postgres was asked: {said}");
    assert!(!said.contains("configuration is not usable"), "{said}");
    Ok(())
}

/// No secret has a default, and the example of .env leaves open what must be set. All that billing
/// providers need is passed on, and empty where it is not set.
#[test]
fn secrets_must_be_set() -> Result<()> {
    let text = read(COMPOSE)?;
    let example = read(".env.example")?;
    let (mut names, mut optional) = (BTreeSet::new(), BTreeSet::new());
    for part in text.split("${").skip(1) {
        let (name, rest) = part.split_once(':').context("a variable without :? or :-")?;
        let (default, _) = rest.split_once('}').context("${ without }")?;
        match default.strip_prefix('-') {
            Some(default) => {
                let is_number = default.bytes().all(|byte| byte.is_ascii_digit());
                assert!(is_number, "{name} has the default {default:?}");
                optional.insert(name.to_owned());
            }
            None => {
                assert!(default.starts_with('?'), "{name} has no error for when it is not set");
                names.insert(name);
            }
        }
    }
    let help = variables_in(&weir(&["serve", "--help"], &BTreeMap::new())?);
    let is_of_provider =
        |name: &&String| ["STRIPE", "CHARGEBEE", "PROVIDER"].iter().any(|part| name.contains(part));
    let of_providers: BTreeSet<_> = help.iter().filter(is_of_provider).cloned().collect();
    assert_eq!(optional, of_providers);
    for name in &optional {
        assert!(example.contains(&format!("\n#{name}=")), ".env.example does not name {name}");
    }
    assert_eq!(names.len(), 3);
    for name in names {
        assert!(example.contains(&format!("\n{name}=\n")), ".env.example leaves {name} open");
    }
    Ok(())
}

/// Whatever Docker copies or mounts is in the repository, or was made in an earlier stage.
#[test]
fn every_path_that_docker_uses_exists() -> Result<()> {
    for dockerfile in DOCKERFILES {
        check_copies(dockerfile)?;
    }
    let compose = yaml(COMPOSE)?;
    for (name, service) in fields(&compose["services"])? {
        if let Some(build) = service.get("build") {
            let dockerfile = text(&build["dockerfile"])?;
            assert_eq!(build["context"], ".", "{name}");
            assert!(DOCKERFILES.contains(&dockerfile), "{dockerfile} is not checked here");
        } else {
            ensure!(service["image"].is_string(), "{name} has neither build nor image");
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = text(volume)?.split(':').next().unwrap_or_default();
            let declared = compose["volumes"].get(source).is_some();
            assert!(
                declared || workspace().join(source).exists(),
                "{name} mounts {source}, which is neither a file nor a volume"
            );
        }
        for dependency in service["depends_on"].as_object().into_iter().flat_map(|all| all.keys()) {
            let depended_on = &compose["services"][dependency];
            assert!(
                depended_on.get("healthcheck").is_some(),
                "{name} waits for {dependency} to be healthy, which has no health check"
            );
        }
    }
    Ok(())
}

/// The image of Envoy has the filter where envoy.yaml looks for it, and sets the token where the
/// placeholder stands.
#[test]
fn the_image_of_envoy_fits_its_configuration() -> Result<()> {
    let file = text(&weir_filter()?["vm_config"]["code"]["local"]["filename"])?.to_owned();
    assert!(read("envoy/Dockerfile")?.contains(&format!("weir_filter.wasm {file}\n")), "{file}");
    let native = native_filter()?;
    let file = text(&native["dynamic_module_config"]["module"]["local"]["filename"])?.to_owned();
    assert!(read("envoy/Dockerfile")?.contains(&format!("libweir_filter.so {file}\n")), "{file}");
    assert_eq!(read(ENVOY)?.matches(TOKEN_PLACEHOLDER).count(), 1);
    assert!(read("envoy/docker-entrypoint.sh")?.contains(&format!("s|{TOKEN_PLACEHOLDER}|$")));
    Ok(())
}

/// Envoy and Istio get the same plugin configuration, apart from how the control plane is reached,
/// and the filter accepts it.
#[test]
fn the_plugin_configuration_is_one_and_accepted() -> Result<()> {
    let filter = weir_filter()?;
    let mut for_envoy: Value = serde_json::from_str(text(&filter["configuration"]["value"])?)?;
    let native = native_filter()?["filter_config"]["value"].clone();
    assert_eq!(serde_json::from_str::<Value>(text(&native)?)?, for_envoy);
    let plugin = yaml(WASM_PLUGIN)?;
    let mut for_istio = plugin["spec"]["pluginConfig"].clone();
    assert_eq!(plugin["spec"]["failStrategy"], filter["failure_policy"]);

    let addresses = |configuration: &mut Value| -> Result<(String, String)> {
        Config::parse(Some(configuration.to_string().as_bytes()))?;
        let part = configuration["control_plane"].as_object_mut().context("no control_plane")?;
        let mut take = |field| text(&part.remove(field).unwrap_or_default()).map(str::to_owned);
        Ok((take("cluster")?, take("authority")?))
    };
    let (envoy_cluster, _) = addresses(&mut for_envoy)?;
    let (istio_cluster, istio_authority) = addresses(&mut for_istio)?;
    // Istio has no routes of its own to turn the filter off for.
    let exempt = for_istio.as_object_mut().and_then(|it| it.remove("exempt"));
    assert_eq!(exempt, Some(json!([{ "path": turned_off_path()? }])));
    assert_eq!(for_envoy, for_istio);
    assert_eq!(for_istio["control_plane"]["token"], TOKEN_PLACEHOLDER);

    cluster_address(&envoy_cluster)?;
    let [_, service] = control_plane_manifests()?;
    let host = format!(
        "{}.{}.svc.cluster.local",
        text(&service["metadata"]["name"])?,
        text(&service["metadata"]["namespace"])?
    );
    let port = &service["spec"]["ports"][0]["port"];
    assert_eq!(istio_cluster, format!("outbound|{port}||{host}"));
    assert_eq!(istio_authority, host);
    Ok(())
}

/// Who listens and who calls name the same port, and Docker publishes on the loopback only.
#[test]
fn ports_agree() -> Result<()> {
    let services = yaml(COMPOSE)?["services"].clone();
    let listener = yaml(ENVOY)?["static_resources"]["listeners"][0]["address"].clone();
    let ingress = &listener["socket_address"]["port_value"];
    assert_eq!(services["envoy"]["ports"][0], format!("127.0.0.1:{ingress}:{ingress}"));
    assert!(read("envoy/Dockerfile")?.contains(&format!("EXPOSE {ingress}\n")));

    let (host, port) = cluster_address("weir")?;
    let control_plane = &services[&host];
    assert_eq!(control_plane["environment"]["WEIR_LISTEN"], format!("0.0.0.0:{port}"));
    assert_eq!(control_plane["ports"][0], format!("127.0.0.1:{port}:{port}"));
    assert!(read("control-plane/Dockerfile")?.contains(&format!("EXPOSE {port}\n")));

    let (host, port) = cluster_address("upstream")?;
    assert_eq!(services[&host]["environment"]["HTTP_PORT"], port.to_string());

    for (name, service) in fields(&services)? {
        for published in service["ports"].as_array().into_iter().flatten() {
            assert!(text(published)?.starts_with("127.0.0.1:"), "{name} publishes {published}");
        }
    }

    let [deployment, service] = control_plane_manifests()?;
    let pod = &deployment["spec"]["template"]["spec"];
    let container_port = &pod["containers"][0]["ports"][0];
    let listen = format!("0.0.0.0:{}", container_port["containerPort"]);
    assert_eq!(deployment_variables()?.get("WEIR_LISTEN"), Some(&listen));
    assert_eq!(service["spec"]["ports"][0]["targetPort"], container_port["name"]);
    assert_eq!(pod["enableServiceLinks"], false, "Kubernetes would set WEIR_PORT");
    Ok(())
}

/// The manifests that nothing else here looks into are YAML for Istio.
#[test]
fn the_other_manifests_can_be_read() -> Result<()> {
    for (file, kinds) in [
        ("envoy/istio/service-entry.yaml", &["ServiceEntry", "DestinationRule"][..]),
        ("envoy/istio/stream-deadline.yaml", &["EnvoyFilter"]),
    ] {
        let found: Vec<_> = manifests(file)?.iter().map(|one| one["kind"].clone()).collect();
        assert_eq!(found, kinds, "{file}");
    }
    Ok(())
}

fn check_copies(dockerfile: &str) -> Result<()> {
    let instructions = read(dockerfile)?.replace("\\\n", " ");
    let mut stages: BTreeMap<&str, String> = BTreeMap::new();
    let mut stage = "";
    for line in instructions.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match *words.as_slice() {
            ["FROM", _, "AS", name] => stage = name,
            ["FROM", _] => stage = "",
            ["COPY", ref arguments @ ..] => {
                let from = arguments.iter().find_map(|word| word.strip_prefix("--from="));
                let paths: Vec<_> =
                    arguments.iter().filter(|word| !word.starts_with("--")).collect();
                let (_, sources) = paths.split_last().context("COPY without paths")?;
                for source in sources {
                    let exists = match from {
                        None => workspace().join(source).exists(),
                        Some(stage) => {
                            stages.get(stage).is_some_and(|done| done.contains(**source))
                        }
                    };
                    assert!(exists, "{dockerfile}: `{line}` has no {source}");
                }
            }
            _ => {}
        }
        stages.entry(stage).or_default().push_str(line);
    }
    Ok(())
}

/// What the host and port of a cluster in envoy.yaml are.
fn cluster_address(name: &str) -> Result<(String, u64)> {
    let envoy = yaml(ENVOY)?;
    let clusters = envoy["static_resources"]["clusters"].as_array().context("no clusters")?;
    let cluster = clusters.iter().find(|cluster| cluster["name"] == name);
    let cluster = cluster.with_context(|| format!("{ENVOY} has no cluster {name}"))?;
    let endpoint = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    let address = &endpoint["address"]["socket_address"];
    let port = address["port_value"].as_u64().context("no port_value")?;
    Ok((text(&address["address"])?.to_owned(), port))
}

fn connection_manager() -> Result<Value> {
    let envoy = yaml(ENVOY)?;
    let filters = &envoy["static_resources"]["listeners"][0]["filter_chains"][0]["filters"];
    Ok(filters[0]["typed_config"].clone())
}

/// The path of the route in envoy.yaml that has no filter.
fn turned_off_path() -> Result<Value> {
    let manager = connection_manager()?;
    let routes = manager["route_config"]["virtual_hosts"][0]["routes"].as_array();
    let off = |route: &&Value| route["typed_per_filter_config"]["weir"]["disabled"] == true;
    let route = routes.context("no routes")?.iter().find(off).context("no route without filter")?;
    Ok(route["match"]["path"].clone())
}

/// The configuration of the filter in envoy.yaml.
fn weir_filter() -> Result<Value> {
    let manager = connection_manager()?;
    let filters = manager["http_filters"].as_array().context("no http_filters")?;
    let weir = filters.iter().find(|filter| filter["name"] == "weir").context("no filter weir")?;
    Ok(weir["typed_config"]["config"].clone())
}

/// The same as a native module, to stand there instead.
fn native_filter() -> Result<Value> {
    let filter = yaml(NATIVE_FILTER)?[0].clone();
    assert_eq!(filter["name"], "weir");
    Ok(filter["typed_config"].clone())
}

fn control_plane_manifests() -> Result<[Value; 2]> {
    let found = manifests(CONTROL_PLANE)?;
    <[Value; 2]>::try_from(found).ok().context("a Deployment and a Service are expected")
}

/// Those with a value in the file have it here; those from a Secret are empty.
fn deployment_variables() -> Result<BTreeMap<String, String>> {
    let [deployment, _] = control_plane_manifests()?;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let variables = container["env"].as_array().context("no env")?;
    let named = |variable: &Value| {
        let value = variable["value"].as_str().unwrap_or_default();
        Ok((text(&variable["name"])?.to_owned(), value.to_owned()))
    };
    variables.iter().map(named).collect()
}

/// What Compose would make of these variables, with Postgres where nobody listens.
fn filled_in(variables: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let mut filled = BTreeMap::new();
    for (name, value) in variables {
        let value = match value.split_once("${") {
            None => value.clone(),
            Some((before, rest)) => {
                let (variable, after) = rest.split_once('}').context("${ without }")?;
                match variable.split_once(":-") {
                    Some((_, default)) => format!("{before}{default}{after}"),
                    None => {
                        let variable = variable.split(':').next().unwrap_or_default();
                        format!("{before}a-secret-for-{}{after}", variable.to_lowercase())
                    }
                }
            }
        };
        filled.insert(name.clone(), value.replace("@postgres:5432/", "@127.0.0.1:1/"));
    }
    Ok(filled)
}
