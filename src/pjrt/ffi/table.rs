//! The part of `pjrt_c_api.h` that we call, transcribed: argument structs and
//! each function's place in the table. Layouts are those of API 0.114, which
//! only ever grows at the end of a struct; the asserts hold them to the sizes
//! that the C compiler gives.
//!
//! A plugin refuses an argument struct smaller than its own and accepts a
//! larger one, so every struct ends in zeroed room for fields of later
//! versions.

use std::ffi::{c_char, c_int, c_void};

pub type Ptr = *mut c_void;

/// An argument struct: it knows which function it belongs to.
///
/// # Safety
/// `repr(C)` with the layout of the C struct, valid when zeroed, `SLOT` the
/// function's index in the table.
pub unsafe trait Args: Sized {
    const SLOT: usize;
    const NAME: &'static str;
    fn new() -> Self;
}

/// Room for fields that later versions of the API append.
pub const FUTURE: usize = 8;

macro_rules! args {
    ($($name:ident = $c_name:literal, slot $slot:literal, size $size:literal {
        $($field:ident: $type:ty),* $(,)?
    })*) => {$(
        #[repr(C)]
        pub struct $name {
            struct_size: usize,
            extension_start: Ptr,
            $(pub $field: $type,)*
            future: [usize; FUTURE],
        }

        const _: () = assert!(std::mem::offset_of!($name, future) == $size);

        // SAFETY: the layout is asserted above; all fields are integers, raw
        // pointers or optional function pointers, for which zero is valid.
        unsafe impl Args for $name {
            const SLOT: usize = $slot;
            const NAME: &'static str = $c_name;
            fn new() -> Self {
                // SAFETY: see above.
                let mut args: Self = unsafe { std::mem::zeroed() };
                args.struct_size = std::mem::size_of::<Self>();
                args
            }
        }
    )*};
}

// Sizes are rounded up to the alignment of 8; `pad` fields make trailing
// padding explicit, so that it stays zero when a later version uses it.
args! {
    ErrorDestroy = "PJRT_Error_Destroy", slot 0, size 24 { error: Ptr }
    ErrorMessage = "PJRT_Error_Message", slot 1, size 40 {
        error: Ptr, message: *const c_char, message_size: usize,
    }
    ErrorGetCode = "PJRT_Error_GetCode", slot 2, size 32 {
        error: Ptr, code: u32, pad: u32,
    }
    PluginInitialize = "PJRT_Plugin_Initialize", slot 3, size 16 {}
    PluginAttributes = "PJRT_Plugin_Attributes", slot 4, size 32 {
        attributes: *const NamedValue, num_attributes: usize,
    }
    EventDestroy = "PJRT_Event_Destroy", slot 5, size 24 { event: Ptr }
    EventIsReady = "PJRT_Event_IsReady", slot 6, size 32 {
        event: Ptr, is_ready: u8, pad: [u8; 7],
    }
    EventAwait = "PJRT_Event_Await", slot 8, size 24 { event: Ptr }
    EventOnReady = "PJRT_Event_OnReady", slot 9, size 40 {
        event: Ptr, callback: Option<unsafe extern "C" fn(Ptr, Ptr)>, user_arg: Ptr,
    }
    ClientCreate = "PJRT_Client_Create", slot 10, size 88 {
        create_options: *const NamedValue, num_options: usize,
        kv_get_callback: Ptr, kv_get_user_arg: Ptr,
        kv_put_callback: Ptr, kv_put_user_arg: Ptr,
        client: Ptr,
        kv_try_get_callback: Ptr, kv_try_get_user_arg: Ptr,
    }
    ClientDestroy = "PJRT_Client_Destroy", slot 11, size 24 { client: Ptr }
    ClientPlatformName = "PJRT_Client_PlatformName", slot 12, size 40 {
        client: Ptr, text: *const c_char, text_size: usize,
    }
    ClientProcessIndex = "PJRT_Client_ProcessIndex", slot 13, size 32 {
        client: Ptr, process_index: c_int, pad: u32,
    }
    ClientPlatformVersion = "PJRT_Client_PlatformVersion", slot 14, size 40 {
        client: Ptr, text: *const c_char, text_size: usize,
    }
    ClientDevices = "PJRT_Client_Devices", slot 15, size 40 {
        client: Ptr, devices: *const Ptr, num_devices: usize,
    }
    ClientAddressableDevices = "PJRT_Client_AddressableDevices", slot 16, size 40 {
        client: Ptr, devices: *const Ptr, num_devices: usize,
    }
    ClientCompile = "PJRT_Client_Compile", slot 20, size 56 {
        client: Ptr, program: *const Program,
        compile_options: *const u8, compile_options_size: usize,
        executable: Ptr,
    }
    ClientBufferFromHostBuffer = "PJRT_Client_BufferFromHostBuffer", slot 22, size 120 {
        client: Ptr, data: *const c_void, element_type: u32, pad: u32,
        dims: *const i64, num_dims: usize,
        byte_strides: *const i64, num_byte_strides: usize,
        host_buffer_semantics: u32, pad2: u32,
        device: Ptr, memory: Ptr, device_layout: Ptr,
        done_with_host_buffer: Ptr, buffer: Ptr,
    }
    DeviceDescriptionId = "PJRT_DeviceDescription_Id", slot 23, size 32 {
        device_description: Ptr, id: c_int, pad: u32,
    }
    DeviceDescriptionProcessIndex = "PJRT_DeviceDescription_ProcessIndex", slot 24, size 32 {
        device_description: Ptr, process_index: c_int, pad: u32,
    }
    DeviceDescriptionKind = "PJRT_DeviceDescription_Kind", slot 26, size 40 {
        device_description: Ptr, text: *const c_char, text_size: usize,
    }
    DeviceGetDescription = "PJRT_Device_GetDescription", slot 29, size 32 {
        device: Ptr, device_description: Ptr,
    }
    DeviceMemoryStats = "PJRT_Device_MemoryStats", slot 34, size 208 {
        device: Ptr,
        bytes_in_use: i64,
        peak_bytes_in_use: OptionalI64,
        num_allocs: OptionalI64,
        largest_alloc_size: OptionalI64,
        bytes_limit: OptionalI64,
        others: [OptionalI64; 7],
    }
    ExecutableDestroy = "PJRT_Executable_Destroy", slot 40, size 24 { executable: Ptr }
    ExecutableNumOutputs = "PJRT_Executable_NumOutputs", slot 44, size 32 {
        executable: Ptr, num_outputs: usize,
    }
    ExecutableGetCostAnalysis = "PJRT_Executable_GetCostAnalysis", slot 46, size 40 {
        executable: Ptr, num_properties: usize, properties: *const NamedValue,
    }
    ExecutableSerialize = "PJRT_Executable_Serialize", slot 49, size 56 {
        executable: Ptr,
        serialized_bytes: *const u8, serialized_bytes_size: usize,
        serialized_executable: Ptr,
        serialized_executable_deleter: Option<unsafe extern "C" fn(Ptr)>,
    }
    LoadedExecutableDestroy = "PJRT_LoadedExecutable_Destroy", slot 50, size 24 {
        executable: Ptr,
    }
    LoadedExecutableGetExecutable = "PJRT_LoadedExecutable_GetExecutable", slot 51, size 32 {
        loaded_executable: Ptr, executable: Ptr,
    }
    LoadedExecutableAddressableDevices = "PJRT_LoadedExecutable_AddressableDevices", slot 52,
        size 40 {
        executable: Ptr, devices: *const Ptr, num_devices: usize,
    }
    LoadedExecutableExecute = "PJRT_LoadedExecutable_Execute", slot 55, size 80 {
        executable: Ptr, options: *mut ExecuteOptions,
        argument_lists: *const *const Ptr, num_devices: usize, num_args: usize,
        output_lists: *const *mut Ptr, device_complete_events: *mut Ptr,
        execute_device: Ptr,
    }
    ExecutableDeserializeAndLoad = "PJRT_Executable_DeserializeAndLoad", slot 56, size 72 {
        client: Ptr,
        serialized_executable: *const u8, serialized_executable_size: usize,
        loaded_executable: Ptr,
        overridden_serialized_compile_options: *const u8,
        overridden_serialized_compile_options_size: usize,
        load_options: Ptr,
    }
    BufferDestroy = "PJRT_Buffer_Destroy", slot 58, size 24 { buffer: Ptr }
    BufferElementType = "PJRT_Buffer_ElementType", slot 59, size 32 {
        buffer: Ptr, element_type: u32, pad: u32,
    }
    BufferDimensions = "PJRT_Buffer_Dimensions", slot 60, size 40 {
        buffer: Ptr, dims: *const i64, num_dims: usize,
    }
    BufferToHostBuffer = "PJRT_Buffer_ToHostBuffer", slot 70, size 56 {
        src: Ptr, host_layout: *const MemoryLayout,
        dst: *mut c_void, dst_size: usize, event: Ptr,
    }
    BufferReadyEvent = "PJRT_Buffer_ReadyEvent", slot 72, size 32 {
        buffer: Ptr, event: Ptr,
    }
    TopologyCreate = "PJRT_TopologyDescription_Create", slot 82, size 56 {
        topology_name: *const u8, topology_name_size: usize,
        create_options: *const NamedValue, num_options: usize,
        topology: Ptr,
    }
    TopologyDestroy = "PJRT_TopologyDescription_Destroy", slot 83, size 24 { topology: Ptr }
    TopologyPlatformName = "PJRT_TopologyDescription_PlatformName", slot 84, size 40 {
        topology: Ptr, text: *const c_char, text_size: usize,
    }
    TopologyDeviceDescriptions = "PJRT_TopologyDescription_GetDeviceDescriptions", slot 86,
        size 40 {
        topology: Ptr, descriptions: *const Ptr, num_descriptions: usize,
    }
    Compile = "PJRT_Compile", slot 89, size 64 {
        topology: Ptr, program: *const Program,
        compile_options: *const u8, compile_options_size: usize,
        client: Ptr, executable: Ptr,
    }
    ExecutableGetCompiledMemoryStats = "PJRT_Executable_GetCompiledMemoryStats", slot 96,
        size 144 {
        executable: Ptr,
        generated_code_size_in_bytes: i64,
        argument_size_in_bytes: i64,
        output_size_in_bytes: i64,
        alias_size_in_bytes: i64,
        temp_size_in_bytes: i64,
        host: [i64; 5],
        peak_memory_in_bytes: i64,
        later: [i64; 4],
    }
}

/// A statistic that a device may leave unset.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OptionalI64 {
    value: i64,
    is_set: u8,
    pad: [u8; 7],
}

impl OptionalI64 {
    pub fn get(self) -> Option<i64> {
        (self.is_set != 0).then_some(self.value)
    }
}

/// `PJRT_Program`. Passed by pointer, so it may be larger than the plugin's.
#[repr(C)]
pub struct Program {
    pub struct_size: usize,
    pub extension_start: Ptr,
    pub code: *const u8,
    pub code_size: usize,
    pub format: *const u8,
    pub format_size: usize,
    pub future: [usize; FUTURE],
}
const _: () = assert!(std::mem::offset_of!(Program, future) == 48);

/// `PJRT_ExecuteOptions`.
#[repr(C)]
pub struct ExecuteOptions {
    pub struct_size: usize,
    pub extension_start: Ptr,
    pub send_callbacks: Ptr,
    pub recv_callbacks: Ptr,
    pub num_send_ops: usize,
    pub num_recv_ops: usize,
    pub launch_id: c_int,
    pub pad: u32,
    pub non_donatable_input_indices: *const i64,
    pub num_non_donatable_input_indices: usize,
    pub context: Ptr,
    pub call_location: *const c_char,
    pub num_tasks: usize,
    pub task_ids: Ptr,
    pub incarnation_ids: Ptr,
    pub multi_slice_config: Ptr,
    pub use_major_to_minor_data_layout_for_callbacks: usize,
    pub hlo_output_callbacks: Ptr,
    pub num_hlo_output_callbacks: usize,
    pub future: [usize; FUTURE],
}
const _: () = assert!(std::mem::offset_of!(ExecuteOptions, future) == 144);

/// `PJRT_NamedValue`. Stands in arrays, so its size is exact.
#[repr(C)]
pub struct NamedValue {
    pub struct_size: usize,
    pub extension_start: Ptr,
    pub name: *const c_char,
    pub name_size: usize,
    pub kind: u32,
    pub pad: u32,
    /// A pointer, an integer, a float or a bool, according to `kind`.
    pub value: [u8; 8],
    pub value_size: usize,
}
const _: () = assert!(std::mem::size_of::<NamedValue>() == 56);

pub const NAMED_STRING: u32 = 0;
pub const NAMED_INT64: u32 = 1;
pub const NAMED_INT64_LIST: u32 = 2;
pub const NAMED_FLOAT: u32 = 3;
pub const NAMED_BOOL: u32 = 4;

/// `PJRT_Buffer_MemoryLayout` in its tiled form, without tiles: dense, in the
/// order that `minor_to_major` says. Its union holds the tiled form, the
/// larger of the two.
#[repr(C)]
pub struct MemoryLayout {
    pub struct_size: usize,
    pub extension_start: Ptr,
    pub tiled: TiledLayout,
    /// 0: tiled.
    pub kind: u32,
    pub pad: u32,
}
const _: () = assert!(std::mem::size_of::<MemoryLayout>() == 80);

#[repr(C)]
pub struct TiledLayout {
    pub struct_size: usize,
    pub extension_start: Ptr,
    pub minor_to_major: *const i64,
    pub minor_to_major_size: usize,
    pub tile_dims: *const i64,
    pub tile_dim_sizes: *const usize,
    pub num_tiles: usize,
}
const _: () = assert!(std::mem::size_of::<TiledLayout>() == 56);

/// Start of `PJRT_Api`, before the function pointers.
#[repr(C)]
pub struct ApiHeader {
    pub struct_size: usize,
    pub extension_start: Ptr,
    pub version_struct_size: usize,
    pub version_extension_start: Ptr,
    pub major: c_int,
    pub minor: c_int,
}
pub const API_HEADER_SIZE: usize = std::mem::size_of::<ApiHeader>();
const _: () = assert!(API_HEADER_SIZE == 40);
