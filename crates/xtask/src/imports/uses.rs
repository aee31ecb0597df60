//! What the files of a crate import from each other.

use std::collections::BTreeSet;

use syn::visit::{self, Visit};
use syn::{ImplItem, Item, ItemMod, ItemUse, Macro, Path, Visibility};

use super::modules::{Crate, ModulePath, attributes, imports, is_test};

/// One file imports a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Arrow {
    /// The file, as a path from the workspace's root.
    pub(super) from: String,
    /// The file of the same crate that has the name; for a name of another crate, its path, such as
    /// `std/time/Duration`.
    pub(super) to: String,
    pub(super) name: String,
    /// Whether the name is imported from the crate's root, which only hands it on.
    pub(super) is_through_root: bool,
}

/// Returns what the files of this crate import, tests left out.
///
/// A name that a module only hands on (`pub use`) is no import of that module.
pub(super) fn arrows_of(krate: &Crate) -> Result<BTreeSet<Arrow>, String> {
    let mut arrows = BTreeSet::new();
    for (file, module, items) in &krate.files {
        let mut visitor = Visitor { krate, file, module: module.clone(), arrows: &mut arrows };
        items.iter().for_each(|item| visitor.visit_item(item));
    }
    Ok(arrows)
}

struct Visitor<'a> {
    krate: &'a Crate,
    file: &'a str,
    module: ModulePath,
    arrows: &'a mut BTreeSet<Arrow>,
}

impl Visitor<'_> {
    fn add(&mut self, path: &[String]) {
        let Some(found) = self.krate.find(&self.module, path) else { return };
        let Some(target) = self.krate.modules.get(&found.module) else { return };
        if target.file == self.file {
            return;
        }
        let name = if found.item.is_empty() { path.join("::") } else { found.item };
        self.arrows.insert(Arrow {
            from: self.file.to_owned(),
            to: target.file.clone(),
            name,
            is_through_root: found.is_through_root,
        });
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            _ => return visit::visit_impl_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if item.content.is_some() {
            self.module.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        for import in imports(item) {
            let is_in_crate = import.path.first().is_some_and(|first| {
                matches!(first.as_str(), "crate" | "self" | "super")
                    || self.krate.modules[&self.module].children.contains(first)
            });
            if import.is_handed_on {
                continue;
            }
            if is_in_crate {
                self.add(&import.path);
            } else {
                self.arrows.insert(Arrow {
                    from: self.file.to_owned(),
                    to: import.path.join("/"),
                    name: import.name,
                    is_through_root: false,
                });
            }
        }
    }

    /// `pub(super)` imports nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast Path) {
        if path.leading_colon.is_none() {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string());
            self.add(&segments.collect::<Vec<_>>());
        }
        visit::visit_path(self, path);
    }

    /// Reads the arguments of a call of a macro, if they are expressions.
    fn visit_macro(&mut self, call: &'ast Macro) {
        let parse = syn::punctuated::Punctuated::<syn::Expr, syn::Token![,]>::parse_terminated;
        if let Ok(arguments) = call.parse_body_with(parse) {
            arguments.iter().for_each(|argument| self.visit_expr(argument));
        }
        visit::visit_macro(self, call);
    }
}
