//! The caps that every part keeps. A number that bounds bytes from outside lives here and nowhere else.

/// Largest payload of one blob chunk, so that every public broker takes it.
pub const CHUNK_BYTES_MAX: u32 = 64 * 1024;
/// Smallest chunk that may be asked for; smaller ones cost more in headers than they carry.
pub const CHUNK_BYTES_MIN: u32 = 1024;
/// Largest MQTT packet that a part sends or accepts: a chunk with its topic and properties, with room.
pub const MQTT_PACKET_BYTES_MAX: u32 = 200_000;
/// Largest control message (desired, reported, want) in bytes.
pub const CONTROL_BYTES_MAX: usize = 128 * 1024;
/// Largest CBOR batch (telemetry, feedback, events) in bytes.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;
/// Most records in one batch.
pub const BATCH_RECORDS_MAX: usize = 512;
/// Largest signed envelope in bytes.
pub const ENVELOPE_BYTES_MAX: usize = 256 * 1024;
/// Most signatures on one envelope.
pub const SIGNATURES_MAX: usize = 8;
/// Most files in one bundle.
pub const BUNDLE_FILES_MAX: usize = 32;
/// Largest single file of a bundle in bytes.
pub const BUNDLE_FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Most deltas that one assignment names.
pub const DELTAS_MAX: usize = 8;
/// Largest file, old or new, that a delta is made for and applied to, in bytes: both are held in memory.
pub const DELTA_FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Most chunk ranges in one want.
pub const WANT_RANGES_MAX: usize = 64;
/// Most chunks asked for by one want; a device asks again when they have come.
pub const WANT_CHUNKS_MAX: u32 = 256;
/// Most remarks that are made on a data set; what is beyond them is counted.
pub const DATASET_REMARKS_MAX: usize = 12;
/// Most class labels of one model.
pub const LABELS_MAX: usize = 10_000;
/// Most characters of a text model's alphabet.
pub const ALPHABET_MAX: usize = 254;
/// Most columns of a table that a model reads: a manifest describes each.
pub const COLUMNS_MAX: usize = 1024;
/// Most heads of a model behind the one of its labels.
pub const HEADS_MAX: usize = 4;
/// Most characters that one request has a text model write.
pub const GENERATED_CHARACTERS_MAX: usize = 4096;
/// Longest text of one sample of a request, in bytes.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Most elements of one inference tensor.
pub const TENSOR_ELEMENTS_MAX: usize = 16 * 1024 * 1024;
/// Most samples that go through a model together; a larger batch is run in parts.
pub const RUN_SAMPLES_MAX: usize = 32;
/// Most slots (models side by side) on one device.
pub const SLOTS_MAX: usize = 8;
/// Most slots in one report: those that are being emptied stand beside those that shall run.
pub const REPORTED_SLOTS_MAX: usize = 2 * SLOTS_MAX;
/// Longest version of an agent in bytes.
pub const AGENT_VERSION_BYTES_MAX: usize = 64;
/// Longest name of a runtime in bytes.
pub const RUNTIME_NAME_BYTES_MAX: usize = 32;
/// Longest address of a device's local API in bytes.
pub const API_ADDRESS_BYTES_MAX: usize = 256;
/// Longest human-readable reason carried in an event, in bytes; longer ones are cut.
pub const REASON_BYTES_MAX: usize = 512;
/// Largest page of any list.
pub const PAGE_MAX: u32 = 500;
/// Page of a list when none is asked for.
pub const PAGE_DEFAULT: u32 = 100;
/// Requests of one user that are answered at once.
pub const REQUESTS_PER_USER_BURST: u64 = 2000;
/// Requests of one user a second after that.
pub const REQUESTS_PER_USER_PER_S: u64 = 1000;
/// Requests from one address that are answered at once.
pub const REQUESTS_PER_ADDRESS_BURST: u64 = 4000;
/// Requests from one address a second after that.
pub const REQUESTS_PER_ADDRESS_PER_S: u64 = 2000;
/// Log-ins of one user, or from one address, that may fail at once.
pub const FAILED_LOGINS_BURST: u64 = 10;
/// A failed log-in is forgotten after so many seconds.
pub const FAILED_LOGIN_S: u64 = 5;
/// Users, and as many addresses, whose requests are counted one by one; beyond that they share what there is.
pub const COUNTED_MAX: usize = 4096;
/// Life of a session.
pub const SESSION_MS: u64 = 12 * 3_600_000;
/// Most sessions of one user; the oldest ends where there would be more.
pub const SESSIONS_PER_USER_MAX: u32 = 32;
/// Shortest password in characters.
pub const PASSWORD_CHARACTERS_MIN: usize = 10;
/// Longest password in bytes.
pub const PASSWORD_BYTES_MAX: usize = 256;
/// Passwords that are checked at one time: each check takes about 20 MB and a good part of a core.
pub const PASSWORD_CHECKS_MAX: usize = 2;
/// Most users.
pub const USERS_MAX: u64 = 1000;
/// Most API tokens.
pub const API_TOKENS_MAX: u64 = 1000;
/// Longest life of an API token in days.
pub const API_TOKEN_DAYS_MAX: u32 = 3660;
/// Longest name of an API token in bytes.
pub const API_TOKEN_NAME_BYTES_MAX: usize = 128;
/// Longest idempotency key in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
/// How long the answer to an idempotency key is kept.
pub const IDEMPOTENCY_MS: u64 = 24 * 3_600_000;
/// A request with an idempotency key that has not ended after this was cut off.
pub const IDEMPOTENCY_RUNNING_MS: u64 = 15 * 60_000;
/// Largest answer that is kept for an idempotency key, in bytes.
pub const IDEMPOTENCY_ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Refused requests that are put on the audit log at once.
pub const AUDITED_REFUSALS_BURST: u64 = 100;
/// Refused requests a second that are put on the audit log after that; all are counted among the security events.
pub const AUDITED_REFUSALS_PER_S: u64 = 5;
/// Changes that whoever lost the connection to the stream is told again.
pub const CHANGES_KEPT: usize = 1024;
/// Changes of one kind that are told one by one, at once and a second after that; beyond them they are told together.
pub const CHANGES_PER_KIND_BURST: u64 = 200;
/// See [`CHANGES_PER_KIND_BURST`].
pub const CHANGES_PER_KIND_PER_S: u64 = 50;
/// Streams of changes at one time.
pub const STREAMS_MAX: usize = 256;
/// Most bytes of one progress line of a worker.
pub const PROGRESS_LINE_BYTES_MAX: usize = 16 * 1024;
/// Largest report of a job that is read, in bytes.
pub const REPORT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest signature of a model (a Sigstore bundle) in bytes; one of the most files with long names is under half of it.
pub const MODEL_SIGNATURE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most files that one signature of a model covers.
pub const MODEL_RESOURCES_MAX: usize = 65_536;
/// Longest path of a file below a signed model's folder, in bytes.
pub const MODEL_PATH_BYTES_MAX: usize = 4096;
/// Largest public key file that is read, in bytes.
pub const PUBLIC_KEY_BYTES_MAX: usize = 16 * 1024;
/// Largest lineage of a version in bytes.
pub const LINEAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Most steps of a lineage.
pub const LINEAGE_STEPS_MAX: usize = 16;
/// Most artefacts that one step of a lineage takes in or gives.
pub const LINEAGE_ARTEFACTS_MAX: usize = 64;
/// Most versions, one the parent of the other, whose lineage is shown together.
pub const LINEAGE_PARENTS_MAX: usize = 16;
/// Largest file of update metadata that a device reads, in bytes; each is one retained message.
pub const METADATA_BYTES_MAX: u64 = 128 * 1024;
/// Most roots that one refresh follows; the next refresh goes on.
pub const METADATA_ROOTS_MAX: u64 = 256;
/// Most targets roles that the search for one target reads.
pub const METADATA_ROLES_MAX: usize = 32;
/// Most signatures on one file of metadata that is signed here.
pub const METADATA_SIGNATURES_MAX: usize = 32;
/// Most workloads that a device is asked to measure at once.
pub const PROFILE_WORKLOADS_MAX: usize = 128;
/// Most steps of one workload.
pub const PROFILE_STEPS_MAX: usize = 64;
/// Most channels, or features, of a value of a workload.
pub const PROFILE_CHANNELS_MAX: u32 = 1024;
/// Longest spatial axis of a value of a workload.
pub const PROFILE_AXIS_MAX: u32 = 16_384;
/// Longest kernel of a workload along one axis.
pub const PROFILE_KERNEL_MAX: u32 = 31;
/// Longest stride of a workload along one axis.
pub const PROFILE_STRIDE_MAX: u32 = 8;
/// Most elements of one value of a workload.
pub const PROFILE_ELEMENTS_MAX: u64 = 1 << 18;
/// Most weights of one workload.
pub const PROFILE_WEIGHTS_MAX: u64 = 1 << 20;
/// Most multiply-accumulates of one run of a workload.
pub const PROFILE_MACS_MAX: u64 = 1 << 26;
/// Most multiply-accumulates of one run of all workloads of a request.
pub const PROFILE_MACS_TOTAL_MAX: u64 = 1 << 30;
/// Longest that a device measures for one request, in milliseconds.
pub const PROFILE_DURATION_MS_MAX: u64 = 30 * 60 * 1000;
/// Most measurements in one report: each workload on each runtime in each form.
pub const PROFILE_MEASURED_MAX: usize = PROFILE_WORKLOADS_MAX * 4;
/// Longest description of a device's processor in bytes.
pub const PROCESSOR_BYTES_MAX: usize = 128;
/// Longest reason why a workload was not measured, in bytes; longer ones are cut.
pub const PROFILE_REASON_BYTES_MAX: usize = 120;
