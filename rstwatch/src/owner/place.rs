//! Where a process lives, read from the path of its cgroup: systemd unit, container with its
//! runtime, Kubernetes pod. No I/O.
//!
//! Nothing but the path is asked, so that the answer is the same without a runtime's daemon, inside
//! another mount namespace, and after the container has gone. Of nested containers and units the
//! innermost counts.

use std::rc::Rc;

use crate::event::Place;

/// Digits of a container's id, as docker, containerd's CRI plugin, cri-o and podman make them.
const ID_LEN: usize = 64;

/// What the runtimes put before the id in the name of a container's cgroup, with systemd's driver
/// and, podman and cri-o, with cgroupfs's too. What is no container comes with no runtime: the
/// monitors that podman and cri-o run beside it.
const PREFIXES: [(&str, Role); 9] = [
    ("docker-", Role::Container("docker")),
    ("cri-containerd-", Role::Container("containerd")),
    ("nerdctl-", Role::Container("containerd")),
    ("crio-conmon-", Role::Monitor),
    ("crio-", Role::Container("cri-o")),
    ("libpod-conmon-", Role::Monitor),
    // What runs in a service of its own: `podman run --cgroups=split`, Quadlet.
    ("libpod-payload-", Role::Container("podman")),
    ("libpod-", Role::Container("podman")),
    ("conmon-", Role::Monitor),
];

#[derive(Clone, Copy)]
enum Role {
    Container(&'static str),
    Monitor,
}

/// A container, as a path names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Container<'a> {
    id: &'a str,
    runtime: Option<&'static str>,
}

/// The place that `/proc/PID/cgroup` tells. The unified hierarchy (`0::`) is taken, unless it tells
/// nothing: on a host with the old ones beside it, then a path that names a container, systemd's
/// own, or the first that lies below the root, in this order.
pub fn from_proc_cgroup(text: &str) -> Place {
    let rank = |(controllers, path): &(&str, &str)| match (*controllers, *path) {
        ("", path) if path != "/" => 0,
        (_, path) if container(path).is_some() => 1,
        ("name=systemd", path) if path != "/" => 2,
        (_, path) if path != "/" => 3,
        ("", _) => 4,
        _ => 5,
    };
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            // A cgroup that was removed when its last process, a zombie, was still to be reaped.
            Some((controllers, path.strip_suffix(" (deleted)").unwrap_or(path)))
        })
        .min_by_key(rank)
        .map_or_else(Place::default, |(_, path)| from_path(path))
}

/// The place that a cgroup's path tells. From within a cgroup namespace, what lies outside of it
/// begins with `/..`; the path is kept as it stands, since where the namespace's root lies is not
/// known there.
pub fn from_path(path: &str) -> Place {
    let container = container(path);
    Place {
        cgroup: Some(Rc::from(path)),
        unit: unit(path).map(Rc::from),
        container: container.map(|container| Rc::from(container.id)),
        runtime: container.and_then(|container| container.runtime),
        pod: pod(path),
    }
}

/// The innermost systemd service, socket, mount or scope.
fn unit(path: &str) -> Option<&str> {
    path.rsplit('/')
        // systemd puts `_` before a name that the kernel could take for a file of its own.
        .map(|part| part.strip_prefix('_').unwrap_or(part))
        .find(|part| {
            [".service", ".scope", ".socket", ".mount", ".swap"]
                .iter()
                .any(|suffix| {
                    part.strip_suffix(suffix)
                        .is_some_and(|name| !name.is_empty())
                })
        })
}

/// The innermost container.
fn container(path: &str) -> Option<Container<'_>> {
    let mut parts = path.rsplit('/').peekable();
    while let Some(part) = parts.next() {
        let above = parts.peek().copied().unwrap_or_default();
        if let Some(container) = container_of(part, above) {
            return Some(container);
        }
    }
    None
}

/// The container whose cgroup has the name `part` and lies in `above`.
fn container_of<'a>(part: &'a str, above: &str) -> Option<Container<'a>> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    // What containerd hands to systemd's driver, when its own is cgroupfs's: `SLICE:PREFIX:ID`.
    if let Some((rest, id)) = name.rsplit_once(':') {
        let runtime = match rest.rsplit(':').next() {
            Some("cri-containerd") => Some("containerd"),
            Some("crio") => Some("cri-o"),
            Some("docker") => Some("docker"),
            _ => None,
        };
        return is_id(id).then_some(Container { id, runtime });
    }
    for (prefix, role) in PREFIXES {
        if let Some(id) = name.strip_prefix(prefix) {
            return match role {
                Role::Container(runtime) if is_id(id) => Some(Container {
                    id,
                    runtime: Some(runtime),
                }),
                _ => None,
            };
        }
    }
    if is_id(name) {
        // In a pod's cgroup the bare id may be docker's as well as containerd's.
        let runtime = match above {
            "docker" => Some("docker"),
            // containerd's namespaces: of nerdctl and ctr, and of the CRI plugin.
            "default" | "k8s.io" => Some("containerd"),
            _ => None,
        };
        return Some(Container { id: name, runtime });
    }
    // Containers of LXC have names: `/lxc.payload.NAME`, before 4.0 `/lxc/NAME`.
    let lxc = match name.strip_prefix("lxc.payload.") {
        None if above == "lxc" || above == "lxc.payload" => Some(name),
        name => name,
    };
    if let Some(id) = lxc {
        return Some(Container {
            id,
            runtime: Some("lxc"),
        });
    }
    // Another runtime's prefix.
    let (prefix, id) = name.rsplit_once('-')?;
    (is_id(id) && !prefix.ends_with("conmon")).then_some(Container { id, runtime: None })
}

fn is_id(text: &str) -> bool {
    text.len() == ID_LEN && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The innermost Kubernetes pod's UID: `podUID` with cgroupfs's driver, `...-podUID.slice` with
/// systemd's, where `_` stands for `-`, which means a slice within a slice there.
fn pod(path: &str) -> Option<Rc<str>> {
    path.rsplit('/').find_map(|part| {
        let slice = part.find(".slice").map(|end| &part[..end]);
        if let Some(slice) = slice {
            let (_, uid) = slice.rsplit_once("-pod")?;
            let uid = uid.replace('_', "-");
            is_uid(&uid).then(|| Rc::from(uid))
        } else {
            let uid = part.strip_prefix("pod")?;
            is_uid(uid).then(|| Rc::from(uid))
        }
    })
}

/// Whether `text` is a UUID; a static pod has a hash, which comes without dashes.
fn is_uid(text: &str) -> bool {
    let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    if text.len() == 32 {
        return is_hex(text);
    }
    text.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && text.split('-').all(is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    /// A container around the one with [`ID`].
    const OUTER: &str = "4cc818a75eb691c5efb9c943b0c3a26ec8e0a05acb60bef4717315e65d671774";
    const UID: &str = "12fdc709-933e-41d0-917f-cd84de9afa94";
    const SLICE_UID: &str = "12fdc709_933e_41d0_917f_cd84de9afa94";
    const STATIC_UID: &str = "c704ef4c297ab11032b83ce52cbfc87b";

    struct Expected {
        path: &'static str,
        unit: Option<&'static str>,
        container: Option<&'static str>,
        runtime: Option<&'static str>,
        pod: Option<&'static str>,
    }

    const fn in_container(path: &'static str, runtime: Option<&'static str>) -> Expected {
        Expected {
            path,
            unit: None,
            container: Some(ID),
            runtime,
            pod: None,
        }
    }

    const fn in_unit(path: &'static str, unit: &'static str) -> Expected {
        Expected {
            path,
            unit: Some(unit),
            container: None,
            runtime: None,
            pod: None,
        }
    }

    impl Expected {
        const fn unit(mut self, unit: &'static str) -> Self {
            self.unit = Some(unit);
            self
        }

        const fn pod(mut self, pod: &'static str) -> Self {
            self.pod = Some(pod);
            self
        }
    }

    const DOCKER: Option<&str> = Some("docker");
    const CONTAINERD: Option<&str> = Some("containerd");
    const CRIO: Option<&str> = Some("cri-o");
    const PODMAN: Option<&str> = Some("podman");

    /// Paths as the runtimes make them, with `ID`, `OUTER`, `UID`, `SLICE_UID` and `STATIC_UID` in
    /// the place of the values.
    const CASES: &[Expected] = &[
        // docker: cgroupfs, systemd, a parent of one's own, and systemd inside.
        in_container("/docker/ID", DOCKER),
        in_container("/system.slice/docker-ID.scope", DOCKER).unit("docker-ID.scope"),
        in_container("/my.slice/docker-ID.scope", DOCKER).unit("docker-ID.scope"),
        in_container("/docker/ID/system.slice/nginx.service", DOCKER).unit("nginx.service"),
        in_container("/system.slice/docker-ID.scope/init", DOCKER).unit("docker-ID.scope"),
        in_container("/ecs/0123456789abcdef0123456789abcdef/ID", None),
        in_container("/actions_job/ID", None),
        // rootless docker.
        in_container(
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
            DOCKER,
        )
        .unit("docker-ID.scope"),
        // Kubernetes: docker, containerd and cri-o with either driver.
        in_container("/kubepods/burstable/podUID/ID", None).pod(UID),
        in_container("/kubepods/podUID/ID", None).pod(UID),
        in_container("/kubepods/besteffort/podSTATIC_UID/ID", None).pod(STATIC_UID),
        in_container("/kubepods/besteffort/podUID/crio-ID", CRIO).pod(UID),
        in_container(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podSLICE_UID.slice\
                 /docker-ID.scope",
            DOCKER,
        )
        .unit("docker-ID.scope")
        .pod(UID),
        in_container(
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podSLICE_UID.slice\
                 /cri-containerd-ID.scope",
            CONTAINERD,
        )
        .unit("cri-containerd-ID.scope")
        .pod(UID),
        in_container(
            "/kubepods.slice/kubepods-podSLICE_UID.slice/crio-ID.scope",
            CRIO,
        )
        .unit("crio-ID.scope")
        .pod(UID),
        in_container(
            "/kubepods.slice/kubepods-podSLICE_UID.slice/crio-ID.scope/container",
            CRIO,
        )
        .unit("crio-ID.scope")
        .pod(UID),
        in_container(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podSTATIC_UID.slice\
                 /cri-containerd-ID.scope",
            CONTAINERD,
        )
        .unit("cri-containerd-ID.scope")
        .pod(STATIC_UID),
        // containerd's cgroupfs driver below a kubelet with systemd's.
        in_container(
            "/kubepods-besteffort-podSLICE_UID.slice:cri-containerd:ID",
            CONTAINERD,
        )
        .pod(UID),
        in_container(
            "/system.slice/containerd.service/kubepods-burstable-podSLICE_UID.slice\
                 :cri-containerd:ID",
            CONTAINERD,
        )
        .unit("containerd.service")
        .pod(UID),
        // kind and minikube: the kubelet in a container; the innermost counts.
        in_container("/docker/OUTER/kubelet/kubepods/burstable/podUID/ID", None).pod(UID),
        in_container(
            "/system.slice/docker-OUTER.scope/kubelet.slice/kubelet-kubepods.slice\
                 /kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-podSLICE_UID.slice\
                 /cri-containerd-ID.scope",
            CONTAINERD,
        )
        .unit("cri-containerd-ID.scope")
        .pod(UID),
        // Docker in a pod.
        in_container(
            "/kubepods.slice/kubepods-podSLICE_UID.slice/cri-containerd-OUTER.scope/docker/ID",
            DOCKER,
        )
        .unit("cri-containerd-OUTER.scope")
        .pod(UID),
        // containerd without Kubernetes.
        in_container("/default/ID", CONTAINERD),
        in_container("/k8s.io/ID", CONTAINERD),
        in_container("/system.slice/nerdctl-ID.scope", CONTAINERD).unit("nerdctl-ID.scope"),
        // podman: as root, rootless, with cgroupfs, in a pod, in a service.
        in_container("/machine.slice/libpod-ID.scope", PODMAN).unit("libpod-ID.scope"),
        in_container("/machine.slice/libpod-ID.scope/container", PODMAN).unit("libpod-ID.scope"),
        in_container(
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope\
                 /container",
            PODMAN,
        )
        .unit("libpod-ID.scope"),
        in_container("/libpod_parent/libpod-ID", PODMAN),
        in_container("/libpod_parent/OUTER/libpod-ID", PODMAN),
        in_container(
            "/machine.slice/machine-libpod_pod_OUTER.slice/libpod-ID.scope",
            PODMAN,
        )
        .unit("libpod-ID.scope"),
        in_container("/system.slice/web.service/libpod-payload-ID", PODMAN).unit("web.service"),
        // The monitors beside the containers live in none.
        in_unit(
            "/machine.slice/libpod-conmon-ID.scope",
            "libpod-conmon-ID.scope",
        ),
        in_unit("/system.slice/crio-conmon-ID.scope", "crio-conmon-ID.scope"),
        // Another runtime's.
        in_container("/system.slice/other-ID.scope", None).unit("other-ID.scope"),
        // From within a cgroup namespace.
        in_container("/../ID", None),
        in_container("/../../system.slice/docker-ID.scope", DOCKER).unit("docker-ID.scope"),
        in_unit("/../../system.slice/nginx.service", "nginx.service"),
        // systemd.
        in_unit("/system.slice/nginx.service", "nginx.service"),
        in_unit(
            "/system.slice/system-getty.slice/getty@tty1.service",
            "getty@tty1.service",
        ),
        in_unit("/system.slice/docker.service", "docker.service"),
        in_unit("/system.slice/_cgroup.service", "cgroup.service"),
        in_unit("/init.scope", "init.scope"),
        in_unit(
            "/user.slice/user-0.slice/session-3.scope",
            "session-3.scope",
        ),
        in_unit(
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox-1.scope",
            "app-firefox-1.scope",
        ),
        in_unit(
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            "init.scope",
        ),
        in_unit(
            "/system.slice/var-lib-docker-containers-ID-mounts-shm.mount",
            "var-lib-docker-containers-ID-mounts-shm.mount",
        ),
    ];

    #[test]
    fn paths_tell_unit_container_runtime_and_pod() {
        let fill = |text: &str| {
            text.replace("OUTER", OUTER)
                .replace("STATIC_UID", STATIC_UID)
                .replace("SLICE_UID", SLICE_UID)
                .replace("UID", UID)
                .replace("ID", ID)
        };
        for case in CASES {
            let path = fill(case.path);
            let place = from_path(&path);
            assert_eq!(place.cgroup.as_deref(), Some(&*path));
            assert_eq!(
                place.unit.as_deref(),
                case.unit.map(fill).as_deref(),
                "{path}"
            );
            assert_eq!(place.container.as_deref(), case.container, "{path}");
            assert_eq!(place.runtime, case.runtime, "{path}");
            assert_eq!(place.pod.as_deref(), case.pod, "{path}");
        }
    }

    #[test]
    fn containers_of_lxc_have_names() {
        for (path, name) in [
            ("/lxc.payload.web/system.slice/nginx.service", "web"),
            ("/lxc.payload/web", "web"),
            ("/lxc/101/ns/system.slice/nginx.service", "101"),
        ] {
            let place = from_path(path);
            assert_eq!(place.container.as_deref(), Some(name));
            assert_eq!(place.runtime, Some("lxc"));
        }
        assert_eq!(from_path("/lxc.monitor.web").container, None);
    }

    #[test]
    fn what_only_looks_alike_is_no_container_and_no_pod() {
        for path in [
            "/",
            "",
            "/docker",
            "/docker/short",
            "/kubepods.slice",
            "/kubepods/podium",
            "/machine-podman.slice/x",
            "/system.slice/pod12fdc709-933e-41d0-917f-cd84de9afa9x",
            "/.scope",
            "/zz23456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        ] {
            let place = from_path(path);
            assert_eq!(place.unit, None, "{path}");
            assert_eq!(place.container, None, "{path}");
            assert_eq!(place.runtime, None, "{path}");
            assert_eq!(place.pod, None, "{path}");
        }
    }

    #[test]
    fn the_unified_hierarchy_comes_first_unless_it_tells_nothing() {
        let docker = format!("/docker/{ID}");
        let v1 = format!("9:cpu,cpuacct:/\n2:pids:{docker}\n1:name=systemd:{docker}\n");
        let hybrid = format!("2:pids:/\n3:memory:{docker}\n1:name=systemd:/a.service\n0::/\n");
        let cases = [
            (
                "0::/system.slice/a.service\n",
                Some("/system.slice/a.service"),
            ),
            (
                "4:memory:/m\n1:name=systemd:/system.slice/b.service\n0::/\n",
                Some("/system.slice/b.service"),
            ),
            (
                "4:memory:/m\n1:name=systemd:/b.service\n0::/u\n",
                Some("/u"),
            ),
            (&v1, Some(&*docker)),
            (&hybrid, Some(&*docker)),
            ("4:memory:/m\n3:cpu:/\n0::/\n", Some("/m")),
            ("0::/a.scope (deleted)\n", Some("/a.scope")),
            ("0::/a:b\n", Some("/a:b")),
            ("2:cpu:/\n0::/\n", Some("/")),
            ("", None),
            ("garbage", None),
        ];
        for (text, path) in cases {
            assert_eq!(from_proc_cgroup(text).cgroup.as_deref(), path, "{text}");
        }
    }
}
