//! How much main memory may still be used: what the machine has, and what a control group (a container, a service)
//! allows.

use std::fs::read_to_string;
use std::path::Path;

/// Assumed where nothing can be found out.
const UNKNOWN_BYTES: usize = 4 << 30;

/// Main memory that this process may still use, in bytes.
pub fn free_bytes() -> usize {
    let info = read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = available(&info).unwrap_or(UNKNOWN_BYTES);
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    group_free(&groups, Path::new("/sys/fs/cgroup")).map_or(machine, |group| group.min(machine))
}

/// While it lives, what is freed goes back to the system at once if it is large, and what else was freed in the end.
///
/// Loading a checkpoint makes and drops as much as it keeps. Left to itself, the C library keeps much of that for later,
/// and later nothing needs it.
#[must_use]
pub struct Loading(());

/// Pieces from this size on are given back one by one.
#[cfg(target_env = "gnu")]
const LOADED_ALONE: libc::c_int = 1 << 20;
/// Afterwards what a step needs is kept up to this size: it would be asked for and cleared anew in each step. Larger pieces,
/// the logits of many rows, leave holes in the heaps of a thread, which are 64 MiB each.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 9 << 20;

impl Loading {
    /// From now on.
    pub fn begin() -> Self {
        #[cfg(target_env = "gnu")]
        // SAFETY: it changes a number in the allocator.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LOADED_ALONE)
        };
        Self(())
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        #[cfg(target_env = "gnu")]
        // SAFETY: they change numbers in the allocator, and give back what is free.
        unsafe {
            libc::malloc_trim(0);
            libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT);
            libc::mallopt(libc::M_TRIM_THRESHOLD, 8 * KEPT);
        }
    }
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available(info: &str) -> Option<usize> {
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<usize>().ok()? << 10)
}

/// The least that any control group of this process has left; `None` where none has a limit.
fn group_free(groups: &str, root: &Path) -> Option<usize> {
    groups
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let (root, limit, used, cached) = match controllers {
                "" => (root.to_path_buf(), "memory.max", "memory.current", "inactive_file"),
                list if list.split(',').any(|name| name == "memory") => {
                    (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                }
                _ => return None,
            };
            // Limits of the groups around it hold too. In a container the path may not exist: its root is the group.
            let own = root.join(path.trim_start_matches('/'));
            own.ancestors()
                .take_while(|dir| dir.starts_with(&root))
                .filter_map(|dir| {
                    let number = |name: &str| read_to_string(dir.join(name)).ok()?.trim().parse::<usize>().ok();
                    let stat = read_to_string(dir.join("memory.stat")).unwrap_or_default();
                    let given_back = stat
                        .lines()
                        .find_map(|line| line.strip_prefix(cached)?.trim().parse::<usize>().ok())
                        .unwrap_or(0);
                    Some(number(limit)?.saturating_sub(number(used)?.saturating_sub(given_back)))
                })
                .min()
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_should_be_the_least_of_all_limits() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("outer/inner");
        std::fs::create_dir_all(&group).unwrap();
        let write = |dir: &Path, name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
        write(&group, "memory.max", "max\n");
        write(&group, "memory.current", "100\n");
        assert_eq!(group_free("0::/outer/inner\n", root.path()), None);
        write(group.parent().unwrap(), "memory.max", "1000\n");
        write(group.parent().unwrap(), "memory.current", "700\n");
        write(group.parent().unwrap(), "memory.stat", "anon 650\ninactive_file 50\n");
        assert_eq!(group_free("0::/outer/inner\n", root.path()), Some(350));
        write(&group, "memory.max", "300\n");
        assert_eq!(group_free("1:cpu:/x\n0::/outer/inner\n", root.path()), Some(200));
        // Seen from inside a container, only the root is there.
        write(root.path(), "memory.max", "90\n");
        write(root.path(), "memory.current", "80\n");
        assert_eq!(group_free("0::/elsewhere\n", root.path()), Some(10));
        let old = root.path().join("memory/box");
        std::fs::create_dir_all(&old).unwrap();
        write(&old, "memory.limit_in_bytes", "50\n");
        write(&old, "memory.usage_in_bytes", "45\n");
        assert_eq!(group_free("4:memory:/box\n", root.path()), Some(5));
        assert!(free_bytes() > 0);
    }
}
