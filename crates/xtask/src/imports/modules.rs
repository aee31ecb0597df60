//! The modules of a crate, and the names that each module has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::{Attribute, Item, ItemUse, UseTree, Visibility};

/// The path of a module from the crate's root, which has the empty path.
pub(super) type ModulePath = Vec<String>;

/// A crate without its tests.
pub(super) struct Crate {
    pub(super) modules: BTreeMap<ModulePath, Module>,
    /// The files, as paths from the workspace's root, with their items.
    pub(super) files: Vec<(String, ModulePath, Vec<Item>)>,
}

/// What a path can name in a module.
#[derive(Default)]
pub(super) struct Module {
    /// The file that has this module, as a path from the workspace's root.
    pub(super) file: String,
    pub(super) children: BTreeSet<String>,
    /// The names that the module takes from elsewhere, and where they are.
    pub(super) imports: Vec<Import>,
}

/// A name that a `use` brings into a module.
#[derive(Clone)]
pub(super) struct Import {
    /// The name in this module; `*` for all names of the other module.
    pub(super) name: String,
    pub(super) path: Vec<String>,
    /// Whether other modules can use the name from here.
    pub(super) is_handed_on: bool,
}

impl Crate {
    /// Reads the crate whose `src` folder this is.
    pub(super) fn read(root: &Path, sources: &Path) -> Result<Self, String> {
        let mut krate = Self { modules: BTreeMap::new(), files: Vec::new() };
        krate.read_file(root, &sources.join("lib.rs"), sources, Vec::new())?;
        Ok(krate)
    }

    /// Reads a file and those of its modules. `folder` has the files of its modules.
    fn read_file(
        &mut self,
        root: &Path,
        path: &Path,
        folder: &Path,
        module: ModulePath,
    ) -> Result<(), String> {
        let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
        let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
        let items = syn::parse_file(&text).map_err(|error| format!("{name}: {error}"))?.items;
        let files = self.add_module(&name, &module, &items);
        self.files.push((name, module.clone(), items));
        for child in files {
            let mut child_module = module.clone();
            child_module.push(child.clone());
            let child_folder = folder.join(&child);
            let file = folder.join(format!("{child}.rs"));
            let file = if file.exists() { file } else { child_folder.join("mod.rs") };
            self.read_file(root, &file, &child_folder, child_module)?;
        }
        Ok(())
    }

    /// Adds a module with these items, and the modules that are written inside of it. Returns the
    /// modules that have files of their own.
    fn add_module(&mut self, file: &str, path: &ModulePath, items: &[Item]) -> Vec<String> {
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        let mut files = Vec::new();
        let mut inner = Vec::new();
        for item in items.iter().filter(|item| !is_test(attributes(item))) {
            match item {
                Item::Mod(child) => {
                    let name = child.ident.to_string();
                    module.children.insert(name.clone());
                    match &child.content {
                        Some((_, items)) => inner.push((name, items)),
                        None => files.push(name),
                    }
                }
                Item::Use(item) => module.imports.extend(imports(item)),
                _ => {}
            }
        }
        self.modules.insert(path.clone(), module);
        for (name, items) in inner {
            let mut path = path.clone();
            path.push(name);
            self.add_module(file, &path, items);
        }
        files
    }
}

/// Returns the names that a `use` brings into its module.
pub(super) fn imports(item: &ItemUse) -> Vec<Import> {
    let is_handed_on = !matches!(item.vis, Visibility::Inherited);
    let mut imports = Vec::new();
    collect(&item.tree, &mut Vec::new(), is_handed_on, &mut imports);
    imports
}

fn collect(tree: &UseTree, path: &mut Vec<String>, is_handed_on: bool, imports: &mut Vec<Import>) {
    match tree {
        UseTree::Path(segment) => {
            path.push(segment.ident.to_string());
            collect(&segment.tree, path, is_handed_on, imports);
            path.pop();
        }
        UseTree::Group(group) => {
            group.items.iter().for_each(|tree| collect(tree, path, is_handed_on, imports));
        }
        UseTree::Glob(_) => {
            imports.push(Import { name: "*".to_owned(), path: path.clone(), is_handed_on });
        }
        UseTree::Name(name) => add(name.ident.to_string(), None, path, is_handed_on, imports),
        UseTree::Rename(name) => {
            let (name, other) = (name.ident.to_string(), name.rename.to_string());
            add(name, Some(other), path, is_handed_on, imports);
        }
    }
}

fn add(
    segment: String,
    other_name: Option<String>,
    path: &[String],
    is_handed_on: bool,
    imports: &mut Vec<Import>,
) {
    let mut path = path.to_vec();
    // `use a::{self}` brings in `a`.
    if segment != "self" {
        path.push(segment);
    }
    let name = other_name.or_else(|| path.last().cloned()).unwrap_or_default();
    imports.push(Import { name, path, is_handed_on });
}

/// Whether an item is only compiled for tests.
pub(super) fn is_test(attributes: &[Attribute]) -> bool {
    let is_cfg_test = |attribute: &Attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    };
    attributes.iter().any(is_cfg_test)
}

pub(super) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
