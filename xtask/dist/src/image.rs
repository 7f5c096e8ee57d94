//! The image of a container (OCI image layout 1.0.0): one layer with the static program and the directories that an
//! agent needs, nothing else.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    str::FromStr as _,
};

use anyhow::{Context as _, Result};
use oci_spec::image::{
    ANNOTATION_REF_NAME, Arch, ConfigBuilder, Descriptor, HistoryBuilder, ImageConfigurationBuilder,
    ImageIndexBuilder, ImageManifestBuilder, MediaType, OciLayoutBuilder, Os, RootFsBuilder, SCHEMA_VERSION,
    Sha256Digest,
};
use tar::{Builder, EntryType, Header};
use xtask_common::machine;

use crate::{checksums::sha256, contents, read, source_date, version, write};

/// Directories of the root, with their modes. The agent's files are in /run/xbond, its configuration in /etc/xbond; the
/// others are where a container's runtime mounts something.
const DIRECTORIES: [(&str, u32); 13] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("etc/xbond", 0o755),
    ("proc", 0o755),
    ("run", 0o755),
    ("run/xbond", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/share", 0o755),
    ("usr/share/licenses", 0o755),
    ("usr/share/licenses/xbond", 0o755),
];
/// The agent gives its control socket to group xbond, as the packages do.
const PASSWD: &str =
    "root:x:0:0:root:/:/usr/bin/xbond\nxbond:x:999:999:xbond agent:/run/xbond:/usr/bin/xbond\n";
const GROUP: &str = "root:x:0:\nxbond:x:999:\n";

/// Builds the image, and returns its tar and the directory of its layout.
///
/// # Errors
/// A file cannot be read or written.
pub fn build(program: &Path, packages: &Path) -> Result<(PathBuf, PathBuf)> {
    let stripped = machine::root().join("target/dist/xbond-static");
    contents::strip(program, &stripped)?;
    let layout = machine::root().join("target/dist/oci");
    let _ = fs::remove_dir_all(&layout);
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("cannot create {}", blobs.display()))?;

    let layer = layer(&read(&stripped)?)?;
    let compressed = blob(&blobs, MediaType::ImageLayerGzip, &contents::gzip(&layer)?)?;
    let config = configuration(&sha256(&layer))?;
    let config = blob(&blobs, MediaType::ImageConfig, config.as_bytes())?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(vec![compressed])
        .build()?;
    let mut manifest = blob(&blobs, MediaType::ImageManifest, manifest.to_string()?.as_bytes())?;
    manifest.set_annotations(Some([(ANNOTATION_REF_NAME.to_owned(), version().to_owned())].into()));
    let index = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(vec![manifest])
        .build()?;
    write(&layout.join("index.json"), index.to_string()?)?;
    let marker = OciLayoutBuilder::default().image_layout_version("1.0.0").build()?;
    write(&layout.join("oci-layout"), marker.to_string()?)?;

    let path = packages.join(format!("xbond-{}-{}.oci.tar", version(), env::consts::ARCH));
    write(&path, archive(&layout)?)?;
    Ok((path, layout))
}

/// Writes a blob under its digest.
fn blob(blobs: &Path, kind: MediaType, content: &[u8]) -> Result<Descriptor> {
    let digest = sha256(content);
    write(&blobs.join(&digest), content)?;
    Ok(Descriptor::new(kind, u64::try_from(content.len())?, Sha256Digest::from_str(&digest)?))
}

/// Returns the configuration of the image: its command is `xbond run`. Options of `podman run` follow it.
fn configuration(layer: &str) -> Result<String> {
    let run = ConfigBuilder::default()
        .entrypoint(vec![String::from("/usr/bin/xbond")])
        .cmd(vec![String::from("run")])
        .env(vec![String::from("PATH=/usr/bin")])
        .labels([(String::from("org.opencontainers.image.version"), version().to_owned())])
        .build()?;
    let root = RootFsBuilder::default().typ("layers").diff_ids(vec![format!("sha256:{layer}")]).build()?;
    let history = HistoryBuilder::default().created_by("cargo xtask dist --oci").build()?;
    let configuration = ImageConfigurationBuilder::default()
        .architecture(Arch::default())
        .os(Os::Linux)
        .config(run)
        .rootfs(root)
        .history(vec![history])
        .build()?;
    Ok(configuration.to_string()?)
}

/// Returns the tar of the root.
fn layer(program: &[u8]) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for (path, mode) in DIRECTORIES {
        append(&mut tar, &format!("{path}/"), mode, None)?;
    }
    append(&mut tar, "etc/passwd", 0o644, Some(PASSWD.as_bytes()))?;
    append(&mut tar, "etc/group", 0o644, Some(GROUP.as_bytes()))?;
    append(&mut tar, "usr/bin/xbond", 0o755, Some(program))?;
    for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
        let licence = read(&machine::root().join(name))?;
        append(&mut tar, &format!("usr/share/licenses/xbond/{name}"), 0o644, Some(&licence))?;
    }
    Ok(tar.into_inner()?)
}

/// Returns the tar of the layout.
fn archive(layout: &Path) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for name in ["oci-layout", "index.json"] {
        append(&mut tar, name, 0o644, Some(&read(&layout.join(name))?))?;
    }
    for directory in ["blobs/", "blobs/sha256/"] {
        append(&mut tar, directory, 0o755, None)?;
    }
    let mut blobs = fs::read_dir(layout.join("blobs/sha256"))?.collect::<Result<Vec<_>, _>>()?;
    blobs.sort_by_key(fs::DirEntry::file_name);
    for entry in blobs {
        let path = format!("blobs/sha256/{}", entry.file_name().to_string_lossy());
        append(&mut tar, &path, 0o644, Some(&read(&entry.path())?))?;
    }
    Ok(tar.into_inner()?)
}

/// Appends a file with this content, or a directory, of root and of the time of the sources.
fn append(tar: &mut Builder<impl Write>, path: &str, mode: u32, content: Option<&[u8]>) -> Result<()> {
    let mut header = Header::new_gnu();
    let content = match content {
        Some(content) => content,
        None => {
            header.set_entry_type(EntryType::Directory);
            &[]
        }
    };
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(source_date().into());
    header.set_size(u64::try_from(content.len())?);
    tar.append_data(&mut header, path, content).with_context(|| format!("cannot pack {path}"))
}
