//! Where a process lives, read from the path of its cgroup: systemd unit and container. No I/O.

use std::sync::Arc;

use crate::event::Place;

/// The place that `/proc/PID/cgroup` tells. The unified hierarchy (`0::`) is taken; on a host with
/// only the old ones systemd's own, else the first that names a path below the root.
pub fn from_proc_cgroup(text: &str) -> Place {
    let mut lines = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        Some((controllers, path))
    });
    let rank = |(controllers, path): &(&str, &str)| match (*controllers, *path) {
        ("", path) if path != "/" => 0,
        ("name=systemd", path) if path != "/" => 1,
        (_, path) if path != "/" => 2,
        ("", _) => 3,
        _ => 4,
    };
    let mut best: Option<(&str, &str)> = None;
    for line in lines.by_ref() {
        if best.is_none_or(|best| rank(&line) < rank(&best)) {
            best = Some(line);
        }
    }
    best.map_or_else(Place::default, |(_, path)| from_path(path))
}

/// The place that a cgroup's path tells.
pub fn from_path(path: &str) -> Place {
    Place {
        cgroup: Some(Arc::from(path)),
        unit: unit(path).map(Arc::from),
        container: container(path).map(Arc::from),
        runtime: None,
        pod: None,
    }
}

/// The innermost systemd service, socket, mount or scope.
fn unit(path: &str) -> Option<&str> {
    path.rsplit('/').find(|part| {
        [".service", ".scope", ".socket", ".mount", ".swap"]
            .iter()
            .any(|suffix| part.ends_with(suffix))
    })
}

/// The innermost container id: 64 hexadecimal digits, as docker, containerd, cri-o and podman make
/// them, perhaps between a runtime's prefix and `.scope`.
fn container(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(|part| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        let id = part.rsplit(['-', ':']).next().unwrap_or(part);
        (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn paths_tell_unit_and_container() {
        let docker = format!("/system.slice/docker-{ID}.scope");
        let docker_unit = format!("docker-{ID}.scope");
        let kube = format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope");
        let kube_unit = format!("cri-containerd-{ID}.scope");
        let v1 = format!("/docker/{ID}");
        let cases: [(&str, Option<&str>, Option<&str>); 6] = [
            ("/system.slice/nginx.service", Some("nginx.service"), None),
            (
                "/user.slice/user-0.slice/session-3.scope",
                Some("session-3.scope"),
                None,
            ),
            (&docker, Some(&docker_unit), Some(ID)),
            (&kube, Some(&kube_unit), Some(ID)),
            (&v1, None, Some(ID)),
            ("/", None, None),
        ];
        for (path, unit, container) in cases {
            let place = from_path(path);
            assert_eq!(place.cgroup.as_deref(), Some(path));
            assert_eq!(place.unit.as_deref(), unit, "{path}");
            assert_eq!(place.container.as_deref(), container, "{path}");
        }
    }

    #[test]
    fn the_unified_hierarchy_comes_first_unless_it_tells_nothing() {
        let v2 = "0::/system.slice/a.service\n";
        assert_eq!(
            from_proc_cgroup(v2).cgroup.as_deref(),
            Some("/system.slice/a.service")
        );
        let hybrid = "4:memory:/m\n1:name=systemd:/system.slice/b.service\n0::/\n";
        assert_eq!(from_proc_cgroup(hybrid).unit.as_deref(), Some("b.service"));
        assert_eq!(from_proc_cgroup("0::/\n").cgroup.as_deref(), Some("/"));
        assert_eq!(from_proc_cgroup("").cgroup, None);
        assert_eq!(from_proc_cgroup("garbage").cgroup, None);
    }
}
