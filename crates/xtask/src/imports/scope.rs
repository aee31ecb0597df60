//! Finding the file that a path names.

use super::modules::{Crate, Import, ModulePath};

/// A path may pass through at most this many names that are handed on.
const MAX_STEPS: usize = 20;

/// Where a path leads.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    /// The module that has the item, or that is the item.
    pub(super) module: ModulePath,
    /// The item's name; empty for a module.
    pub(super) item: String,
    /// Whether the path passed through a name that the crate's root hands on.
    pub(super) is_through_root: bool,
}

impl Crate {
    /// Follows a path that is written in this module. Returns `None` if it leads out of the crate,
    /// or to a name of the same module.
    pub(super) fn find(&self, module: &ModulePath, path: &[String]) -> Option<Found> {
        self.follow(module, path, MAX_STEPS)
    }

    fn follow(&self, module: &ModulePath, path: &[String], steps: usize) -> Option<Found> {
        let steps = steps.checked_sub(1)?;
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.descend(Vec::new(), rest, steps),
            "self" => self.descend(module.clone(), rest, steps),
            "super" => {
                let mut parent = module.clone();
                parent.pop()?;
                // `super::super::a`.
                if rest.first().is_some_and(|next| next == "super") {
                    return self.follow(&parent, rest, steps);
                }
                self.descend(parent, rest, steps)
            }
            name => {
                let names = self.modules.get(module)?;
                if names.children.contains(name) {
                    return self.descend(module.clone(), path, steps);
                }
                let import = names.imports.iter().find(|import| import.name == name)?;
                self.follow_import(module, import, rest, steps)
            }
        }
    }

    fn follow_import(
        &self,
        module: &ModulePath,
        import: &Import,
        rest: &[String],
        steps: usize,
    ) -> Option<Found> {
        // `use error::Error` in a module without a child `error` is a path to another crate.
        let first = import.path.first()?;
        let is_in_crate = matches!(first.as_str(), "crate" | "self" | "super")
            || self.modules.get(module)?.children.contains(first);
        if !is_in_crate {
            return None;
        }
        let path: Vec<String> = import.path.iter().chain(rest).cloned().collect();
        self.follow(module, &path, steps)
    }

    /// Follows a path from this module downwards.
    fn descend(&self, mut module: ModulePath, path: &[String], steps: usize) -> Option<Found> {
        for (index, name) in path.iter().enumerate() {
            let names = self.modules.get(&module)?;
            if names.children.contains(name) {
                module.push(name.clone());
                continue;
            }
            let handed_on = names.imports.iter().find(|import| import.name == *name);
            if let Some(import) = handed_on {
                let found = self.follow_import(&module, import, &path[index + 1..], steps)?;
                let is_root = module.is_empty();
                return Some(Found { is_through_root: found.is_through_root || is_root, ..found });
            }
            return Some(Found { module, item: name.clone(), is_through_root: false });
        }
        Some(Found { module, item: String::new(), is_through_root: false })
    }
}
