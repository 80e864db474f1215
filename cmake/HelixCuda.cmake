# The CUDA toolkit's compiler, for the kernels of runtime/Cuda; no other part of the toolkit is used, and none when they
# run. HELIX_CUDA AUTO builds them where nvcc is found.
set(HELIX_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO, ON or OFF")
set_property(CACHE HELIX_CUDA PROPERTY STRINGS AUTO ON OFF)

if(HELIX_CUDA STREQUAL "OFF")
  set(HELIX_HAS_NVCC OFF)
else()
  find_program(HELIX_NVCC nvcc HINTS ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
  find_program(HELIX_OBJCOPY NAMES objcopy llvm-objcopy-22)
  if(HELIX_NVCC AND HELIX_OBJCOPY)
    set(HELIX_HAS_NVCC ON)
  elseif(HELIX_CUDA STREQUAL "AUTO")
    set(HELIX_HAS_NVCC OFF)
  else()
    message(FATAL_ERROR "HELIX_CUDA is ON, but nvcc or objcopy is not found")
  endif()
endif()

# helix_cuda_image(OUTPUT_VARIABLE SOURCE): the fat binary that SOURCE compiles to, and beside it what ptxas says of each
# kernel (SOURCE's name with .fatbin and .log). It passes through an object file, because that is what ccache caches. The
# driver unpacks what is compressed, here to about a third.
function(helix_cuda_image output source)
  get_filename_component(name ${source} NAME_WE)
  set(image ${CMAKE_CURRENT_BINARY_DIR}/${name}.fatbin)
  set(log ${CMAKE_CURRENT_BINARY_DIR}/${name}.log)
  set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.o)
  set(command
      ${launcher} ${HELIX_NVCC} -std=c++20 -O3 --expt-relaxed-constexpr -Werror all-warnings -Xptxas -v
      -Xfatbin=-compress-all -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a
      -gencode arch=compute_100,code=sm_100 -gencode arch=compute_80,code=compute_80 -I ${CMAKE_SOURCE_DIR}
      -MD -MF ${object}.d -c ${CMAKE_CURRENT_SOURCE_DIR}/${source} -o ${object})
  list(JOIN command " " command)
  add_custom_command(
    OUTPUT ${image} ${log}
    COMMAND sh -c "${command} 2> ${log} || { cat ${log}; exit 1; }"
    COMMAND ${HELIX_OBJCOPY} -O binary --only-section=.nv_fatbin ${object} ${image}
    DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${source}
    DEPFILE ${object}.d
    COMMENT "Compiling CUDA kernels ${name}"
    VERBATIM)
  set(${output} ${image} PARENT_SCOPE)
endfunction()
